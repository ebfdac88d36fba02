"""Weights of other toolkits are recognised, renamed, and give the same numbers as the original code
(tests/data/peers).
"""

import json

import numpy as np
import pytest
import torch

from conftest import DATA, shared
from sasv.checkpoints import load_checkpoint, spawn_encoder
from sasv.core.errors import CheckpointError
from sasv.encoders.base import lengths_tensor, parameters_of

LISTED = json.loads((DATA / "peers" / "keys.json").read_text())
HEADS = json.loads((DATA / "peers" / "heads.json").read_text())
LENGTHS = (40000, 52321, 16500)
QUICK = ("wespeaker/campplus", "wespeaker/resnet34", "wespeaker/ecapa-512", "redimnet/default-m")
SLOW = tuple(name for name in LISTED if name not in QUICK)
DEEP = ("wespeaker/resnet293",)  # as resnet221, only deeper
NAMES = [
    *QUICK,
    *(
        pytest.param(name, marks=pytest.mark.long if name in DEEP else pytest.mark.slow)
        for name in SLOW
    ),
]
BESIDE = {"wespeaker": ("config.yaml", "dataset_args: {resample_rate: 16000}\n")}


def entries_of(name, fill):
    """Return the filled state dict of an original model."""
    entries = {}
    for key, shape, kind in LISTED[name]["entries"]:
        filled = shape and "float" in kind and not key.startswith("spec.")
        value = fill.fill_array(key, tuple(shape), 0) if filled else np.zeros(shape, np.float32)
        entries[key] = torch.from_numpy(value).to(torch.int64 if "int" in kind else torch.float32)
    return entries


def written(folder, name, entries):
    """Write weights in the format of their toolkit; return the path."""
    toolkit = name.split("/")[0]
    if toolkit in BESIDE:
        (folder / BESIDE[toolkit][0]).write_text(BESIDE[toolkit][1])
    path = folder / "avg_model.pt"
    torch.save(
        entries if toolkit != "redimnet" else {"model_config": {"F": 72}, "state_dict": entries},
        path,
    )
    return path


@pytest.fixture(scope="module", params=NAMES)
def loaded(request, fill, tmp_path_factory):
    path = written(tmp_path_factory.mktemp("peer"), request.param, entries_of(request.param, fill))
    checkpoint = load_checkpoint(path)
    path.unlink()
    return request.param, checkpoint, spawn_encoder(checkpoint).eval()


def largest_difference(found, expected):
    """Return the largest difference, relative to the largest value."""
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.slow
def test_embeddings_equal_those_of_the_original(loaded, fill, peers):
    """The requirement is 1e-4; the differences are of the order of 1e-6."""
    name, checkpoint, encoder = loaded
    assert parameters_of(encoder) == LISTED[name]["parameters"]
    assert checkpoint.specification.sample_rate == 16000
    with torch.no_grad():
        found = encoder(torch.from_numpy(fill.waveform(LENGTHS[2], 2))[None])[0].numpy()
    assert largest_difference(found, peers[f"{name}/embedding/{LENGTHS[2]}"]) < 2e-5


@pytest.mark.slow
def test_batched_embeddings_equal_those_of_the_original(loaded, fill, peers):
    name, _, encoder = loaded
    batch = torch.full((len(LENGTHS), max(LENGTHS)), 0.3)
    for index, length in enumerate(LENGTHS):
        batch[index, :length] = torch.from_numpy(fill.waveform(length, index))
    with torch.no_grad():
        together = encoder(batch, lengths_tensor(list(LENGTHS))).numpy()
    for found, length in zip(together, LENGTHS):
        assert largest_difference(found, peers[f"{name}/embedding/{length}"]) < 2e-5


WRAPPERS = {
    "module.": lambda entries: {f"module.{key}": value for key, value in entries.items()},
    "lightning": lambda entries: {
        "state_dict": {f"model.{key}": value for key, value in entries.items()},
        "epoch": 3,
    },
    "compiled": lambda entries: {f"_orig_mod.{key}": value for key, value in entries.items()},
    "hub": lambda entries: {f"resnet.{key}": value for key, value in entries.items()},
    "trained": lambda entries: entries | {"projection.weight": torch.ones(7, 256)},
}


def resnet18():
    """Return the weights of a small residual network in WeSpeaker's format, not all zero."""
    from sasv.encoders import make_encoder

    torch.manual_seed(0)
    state = make_encoder("resnet", {"depth": 18, "channels": 2}).state_dict()
    return {key: value for key, value in state.items() if not key.startswith("frontend.")}


@pytest.mark.parametrize("wrapper", list(WRAPPERS))
def test_wrapper_prefixes_are_removed(wrapper, tmp_path):
    entries = resnet18()
    torch.save(WRAPPERS[wrapper](entries), tmp_path / "avg_model.pt")
    checkpoint = load_checkpoint(tmp_path / "avg_model.pt")
    assert checkpoint.specification.encoder == "resnet"
    assert checkpoint.specification.encoder_options["depth"] == 18
    assert checkpoint.specification.frontend_options["window"] == "hamming"
    assert set(checkpoint.encoder) == set(entries)


BOMB = "a0: &a0 {x: 1}\n" + "".join(
    f"a{at}: &a{at} {{{', '.join(f'x{key}: *a{at - 1}' for key in range(9))}}}\n"
    for at in range(1, 10)
)
"""Nine aliases in each of nine lines: a billion settings in 700 bytes."""

CONFIGS = {
    "model: ResNet34\n": "model ResNet34, but the weights are of resnet of depth 18",
    "model: ECAPA_TDNN_GLOB_c512\n": "model ECAPA_TDNN_GLOB_c512, but the weights are of resnet",
    "model_args: {embed_dim: 192}\n": "embed_dim 192, but the weights say 256",
    "dataset_args: {resample_rate: 8000}\n": "resample_rate 8000; only models for 16000 Hz",
    "model: [\n": "cannot be read",
    "- 1\n": "names and values",
    "a: " + 2000 * "{a: ": "cannot be read",
    "a: &a {x: *a}\n": "cannot be read",
    BOMB: "more than 10,000 settings",
}


@pytest.mark.parametrize("text", list(CONFIGS), ids=lambda text: text[:20])
def test_settings_that_contradict_the_weights_are_errors(text, tmp_path):
    torch.save(resnet18(), tmp_path / "avg_model.pt")
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(CheckpointError, match=CONFIGS[text]):
        load_checkpoint(tmp_path / "avg_model.pt")


def test_unknown_entries_are_listed(tmp_path):
    torch.save(resnet18() | {"layer5.0.conv1.weight": torch.ones(2, 2)}, tmp_path / "avg_model.pt")
    with pytest.raises(CheckpointError, match=r"unexpected: layer5\.0\.conv1\.weight"):
        load_checkpoint(tmp_path / "avg_model.pt")
    torch.save({"speaker_net.fc.weight": torch.ones(2, 2)}, tmp_path / "other.pt")
    with pytest.raises(
        CheckpointError, match=r"of another model or program.*speaker_net\.fc\.weight"
    ):
        load_checkpoint(tmp_path / "other.pt")


def test_missing_entry_is_named_in_the_error(tmp_path):
    entries = resnet18()
    del entries["layer2.0.bn1.weight"]
    torch.save(entries, tmp_path / "avg_model.pt")
    with pytest.raises(CheckpointError, match=r"missing: layer2\.0\.bn1\.weight"):
        load_checkpoint(tmp_path / "avg_model.pt")


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_weights_that_are_not_numbers_or_all_zero_are_refused(value, tmp_path):
    entries = resnet18()
    if value == 0.0:
        entries = {key: torch.zeros_like(tensor) for key, tensor in entries.items()}
    else:
        entries["seg_1.weight"][0, 0] = value
    torch.save(entries, tmp_path / "avg_model.pt")
    with pytest.raises(CheckpointError, match="all weights are 0|not finite"):
        load_checkpoint(tmp_path / "avg_model.pt")


REDIMNET_CONFIGS = [
    ({"feat_type": "tf"}, "not supported: feat_type tf"),
    ({"F": 60}, "F 60, but the weights say 72"),
    ({"block_1d_type": "conv+att"}, "block_1d_type conv\\+att, but the weights say att"),
    ({"embed_dim": 256}, "embed_dim 256, but the weights say 24"),
]


def redimnet():
    from sasv.encoders import make_encoder, preset

    torch.manual_seed(0)
    state = make_encoder("redimnet", preset("redimnet", "test")).state_dict()
    return {key: value for key, value in state.items() if not key.startswith("frontend.")}


@pytest.mark.parametrize(("config", "message"), REDIMNET_CONFIGS)
def test_redimnet_that_contradicts_its_settings_is_refused(config, message, tmp_path):
    torch.save({"model_config": config, "state_dict": redimnet()}, tmp_path / "b0.pt")
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "b0.pt")


@pytest.mark.parametrize("block_1d", ["fc", "conv", "att", "conv+att"])
@pytest.mark.parametrize(
    "block_2d", ["convnext_like", "convnext_like_relu", "basic_resnet", "basic_resnet_fwse"]
)
def test_every_redimnet_is_read_back_from_its_shapes(block_1d, block_2d, tmp_path):
    from sasv.encoders import make_encoder

    options = {
        "channels": 8,
        "block_1d": block_1d,
        "block_2d": block_2d,
        "strides": [1, 2, 3],
        "blocks": [1, 2, 1],
        "expansions": [1.0, 2.0, 1.0],
        "reductions": [None, 12, 8],
        "context": True,
        "embedding_norm": True,
        "output_channels": 50,
        "group_width": None if block_2d == "basic_resnet" else 4,
    }
    made = make_encoder("redimnet", options)
    state = {
        key: value for key, value in made.state_dict().items() if not key.startswith("frontend.")
    }
    config = {"block_2d_type": block_2d, "hop_length": 240, "spec_params": {"norm_signal": True}}
    torch.save({"model_config": config, "state_dict": state}, tmp_path / "b0.pt")
    specification = load_checkpoint(tmp_path / "b0.pt").specification
    assert specification.encoder_options == made.option_values()
    assert specification.frontend_options == {"mels": 72, "hop": 240, "normalise": True}


ODD_SIZES = [
    ("campplus", {"embedding": 20, "channels": 6, "initial": 18, "growth": 6, "bottleneck": 10}),
    ("eres2netv2", {"embedding": 20, "channels": 10, "base_width": 27, "scale": 3}),
    ("resnet", {"depth": 50, "channels": 3, "embedding": 20, "pooling": "attentive"}),
    ("resnet", {"depth": 34, "channels": 2, "embedding": 20}),
    ("aasist", {"channels": (6, 10), "graph_units": 6, "embedding": 30}),
]


@pytest.mark.parametrize(("name", "changes"), ODD_SIZES)
def test_odd_sizes_are_read_back_from_the_shapes(name, changes, tmp_path):
    from sasv.encoders import make_encoder, preset

    torch.manual_seed(0)
    options = changes if name == "resnet" else preset(name, "test") | changes
    made = make_encoder(name, options)
    state = {
        key: value for key, value in made.state_dict().items() if not key.startswith("frontend.")
    }
    torch.save(state, tmp_path / "weights.pt")
    found = load_checkpoint(tmp_path / "weights.pt").specification.encoder_options
    unseen = (
        "samples",
        "ratios",
        "temperatures",
        "variance_epsilon",
        "frozen_blocks",
    )  # these cannot be inferred from shapes
    expected = {key: value for key, value in made.option_values().items() if key not in unseen}
    assert {key: found[key] for key in expected} == expected


def speechbrain_entries():
    """Return the weights of a small ECAPA-TDNN in SpeechBrain's format."""
    from sasv.encoders import make_encoder, preset

    torch.manual_seed(0)
    made = make_encoder("ecapa-speechbrain", preset("ecapa-speechbrain", "test"))
    state = made.state_dict()
    names = {
        "conv1.": "blocks.0.conv.conv.",
        "bn1.": "blocks.0.norm.norm.",
        "layer4.": "mfa.conv.conv.",
        "bn4.": "mfa.norm.norm.",
        "attention.0.": "asp.tdnn.conv.conv.",
        "attention.2.": "asp.tdnn.norm.norm.",
        "attention.4.": "asp.conv.conv.",
        "bn5.": "asp_bn.norm.",
        "fc6.": "fc.conv.",
    }
    for block in "123":
        here, there = f"layer{block}.", f"blocks.{block}."
        names |= {
            f"{here}conv1.": f"{there}tdnn1.conv.conv.",
            f"{here}bn1.": f"{there}tdnn1.norm.norm.",
            f"{here}conv3.": f"{there}tdnn2.conv.conv.",
            f"{here}bn3.": f"{there}tdnn2.norm.norm.",
            f"{here}se.se.1.": f"{there}se_block.conv1.conv.",
            f"{here}se.se.3.": f"{there}se_block.conv2.conv.",
        }
        for group in range(3):
            names[f"{here}convs.{group}."] = f"{there}res2net_block.blocks.{group}.conv.conv."
            names[f"{here}bns.{group}."] = f"{there}res2net_block.blocks.{group}.norm.norm."
    entries = {}
    for key, value in state.items():
        ours = next(start for start in names if key.startswith(start))
        entries[names[ours] + key.removeprefix(ours)] = (
            value[..., None] if key == "fc6.weight" else value
        )
    return entries


def test_speechbrain_settings_with_tags_of_their_own(tmp_path):
    entries = speechbrain_entries()
    torch.save(entries, tmp_path / "embedding_model.ckpt")
    model = "embedding_model: !new:speechbrain.ECAPA_TDNN\n    input_size: !ref <n_mels>\n"
    text = f"n_mels: 80\n{model}    lin_neurons: %d\n"
    (tmp_path / "hyperparams.yaml").write_text(text % 24)
    assert (
        load_checkpoint(tmp_path / "embedding_model.ckpt").specification.frontend == "speechbrain"
    )
    (tmp_path / "hyperparams.yaml").write_text(text % 256)
    with pytest.raises(CheckpointError, match="lin_neurons 256, but the weights say 24"):
        load_checkpoint(tmp_path / "embedding_model.ckpt")


@pytest.mark.slow
@pytest.mark.speech
@pytest.mark.parametrize(("name", "file"), [("aasist", "aasist.pth"), ("aasist-l", "aasist-l.pth")])
def test_aasist_gives_its_published_numbers(name, file, fill):
    checkpoint = load_checkpoint(shared("weights", file))
    assert checkpoint.specification.frontend == "waveform"
    encoder = spawn_encoder(checkpoint).eval()
    assert parameters_of(encoder) == HEADS[name]["parameters"]
    expected = np.load(DATA / "peers" / "heads.npz")
    with torch.no_grad():
        for index, length in enumerate(LENGTHS):
            if (name, length) == ("aasist", 52321):
                # two nodes of a graph have the same score to six digits there, so their order is
                # chance
                continue
            hidden = encoder(torch.from_numpy(fill.waveform(length, index))[None])
            wanted = expected[f"{name}/hidden/{length}"]
            assert np.abs(hidden[0].numpy() - wanted).max() < 1e-5 * np.abs(wanted).max()
            assert (
                abs(float(encoder.scores(hidden)) - expected[f"{name}/logits/{length}"][1]) < 1e-4
            )


@pytest.mark.slow
@pytest.mark.speech
@pytest.mark.parametrize(("name", "file"), [("aasist", "aasist.pth"), ("aasist-l", "aasist-l.pth")])
def test_aasist_scores_real_speech_as_published(name, file):
    """Every thirtieth of the 100 files of the development part. All of them agree to 3e-5."""
    from sasv.audio.io import read_speech

    encoder = spawn_encoder(load_checkpoint(shared("weights", file))).eval()
    expected = np.load(DATA / "peers" / "heads.npz")[f"{name}/dev_scores"]
    folder = shared("speech", "ASVspoof2019")
    for index in range(0, len(expected), 30):
        path = next(folder.rglob(f"{HEADS[name]['dev_files'][index]}.flac"))
        with torch.no_grad():
            score = encoder.scores(encoder(torch.from_numpy(read_speech(path))[None]))
        assert abs(float(score) - expected[index]) < 1e-3
