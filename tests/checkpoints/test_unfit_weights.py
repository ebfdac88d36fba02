"""Weights that do not fit, because of another family, size, sample rate, or kind. Each gives one
line that says what to do.
"""

import json
import sys

import numpy as np
import pytest
import torch

from conftest import next_stage
from sasv.checkpoints import Checkpoint, Specification, load_checkpoint, save_checkpoint
from sasv.cli import main
from sasv.core.errors import CheckpointError, MissingExtra, SasvError
from sasv.encoders import ENCODERS, make_encoder, preset
from sasv.training.modules import make_modules
from sasv.training.options import TrainOptions
from sasv.weights import fetch


def refused(path, words):
    with pytest.raises(CheckpointError, match=words) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def state_of(name):
    """Return the entries of a small encoder without its front-end."""
    torch.manual_seed(0)
    state = make_encoder(name, preset(name, "test")).state_dict()
    return {key: value for key, value in state.items() if not key.startswith("frontend.")}


@pytest.fixture(scope="module")
def campplus(tmp_path_factory):
    """A small CAM++ in the format of 3D-Speaker, without its settings file."""
    path = tmp_path_factory.mktemp("campplus") / "campplus.bin"
    torch.save(state_of("campplus"), path)
    return path


BACKBONES = ("wav2vec2", "w2v-bert", "whisper")
WANTED = [
    ({}, "its encoder is campplus, not ecapa-tdnn; set --encoder campplus"),
    ({"encoder": "resnet"}, "its encoder is campplus, not resnet"),
    (
        {"encoder": "campplus", "encoder_options": {"embedding": 48}},
        "has embedding 24 and not 48; leave out what the checkpoint says",
    ),
    (
        {"encoder": "campplus", "frontend_options": {"window": "hamming"}},
        "has window povey and not hamming",
    ),
]


@pytest.mark.parametrize(("changes", "message"), WANTED)
def test_training_refuses_weights_of_another_family_or_size(campplus, changes, message):
    options = TrainOptions(utterances="u.tsv", out="out", init=str(campplus), **changes)
    with pytest.raises(SasvError, match=message):
        make_modules(options, options, ["a", "b"])


@pytest.mark.parametrize("name", [name for name in ENCODERS if name not in BACKBONES])
def test_preset_matching_the_initial_weights_is_accepted(name, tmp_path):
    """sasv reproduce gives the preset to every stage."""
    encoder, wanted = next_stage(name, tmp_path / "stage1.safetensors")
    found, _, _ = make_modules(wanted, wanted, ["a", "b"])
    assert found.option_values() == encoder.option_values()


def test_entries_of_two_sizes_are_refused(campplus, tmp_path):
    entries = state_of("campplus")
    entries["xvector.block2.tdnnd1.cam_layer.linear_local.weight"] = torch.ones(3, 8, 3)
    torch.save(entries, tmp_path / "mixed.bin")
    refused(
        tmp_path / "mixed.bin",
        r"mis-shaped: xvector\.block2\.tdnnd1\.cam_layer\.linear_local\.weight \(3, 8, 3\) instead",
    )


SETTINGS = [
    ("campplus", "campplus.bin", "configuration.json", {"model": {"sample_rate": 8000}}, "8000"),
    (
        "campplus",
        "campplus.bin",
        "configuration.json",
        {"model": {"model_config": {"emb_size": 512}}},
        "emb_size 512, but the weights say 24",
    ),
    (
        "eres2netv2",
        "eres2netv2.ckpt",
        "configuration.json",
        {"model": {"model_config": {"embedding_size": 512, "sample_rate": 16000}}},
        "embedding_size 512, but the weights say",
    ),
    (
        "aasist",
        "AASIST.pth",
        "AASIST.conf",
        {"model_config": {"gat_dims": [64, 32]}},
        r"gat_dims \[64, 32\], but the weights say \[8, 8\]",
    ),
]


@pytest.mark.parametrize(("name", "file", "beside", "settings", "message"), SETTINGS)
def test_settings_that_contradict_the_weights(name, file, beside, settings, message, tmp_path):
    torch.save(state_of(name), tmp_path / file)
    (tmp_path / beside).write_text(json.dumps(settings))
    refused(tmp_path / file, message)
    (tmp_path / beside).unlink()
    assert load_checkpoint(tmp_path / file).specification.encoder == name


def test_unknown_prefix_is_named_in_the_error(tmp_path):
    torch.save({f"student.{key}": v for key, v in state_of("campplus").items()}, tmp_path / "x.pt")
    refused(tmp_path / "x.pt", r"unknown prefix student\. .*head\.bn1.*save the state dict of the")


def test_a_folder_stands_for_the_weights_in_it(campplus, tmp_path):
    assert load_checkpoint(campplus.parent).specification.encoder == "campplus"
    refused(tmp_path, r"a folder given as a checkpoint .* contains none")
    for name in ("a.ckpt", "b.ckpt"):
        (tmp_path / name).write_bytes(campplus.read_bytes())
    refused(tmp_path, r"contains several \(a\.ckpt, b\.ckpt\); give the path")


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip(
        "transformers", reason="transformers is not installed (extra neural)"
    )


@pytest.fixture(scope="module")
def hub_folders(transformers, tmp_path_factory):
    """Encoder -> folder of a tiny backbone in the form of the hub, and its type."""
    found = {}
    for name, kind in (("wav2vec2", "wavlm"), ("w2v-bert", None), ("whisper", "whisper")):
        config = dict(preset(name, "test")["config"])
        kind = config.pop("model_type", kind)
        parsed = transformers.AutoConfig.for_model(kind, **config)
        folder = tmp_path_factory.mktemp(name)
        transformers.AutoModel.from_config(parsed).save_pretrained(folder)
        found[name] = (folder, kind)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wav2vec2", "w2v-bert", "whisper"])
def test_raw_backbone_is_refused_with_advice_on_training(hub_folders, name, capsys):
    folder, kind = hub_folders[name]
    option = rf"--encoder {name} --encoder-options '\{{backbone: {folder}\}}'"
    with pytest.raises(CheckpointError, match=rf"backbone \({kind}\).*no speaker.*{option}"):
        load_checkpoint(folder)
    assert main(["info", str(folder / "model.safetensors")]) == 2
    err = capsys.readouterr().err
    assert "no speaker embedding yet; train on it" in err and err.count("\n") == 1
    assert make_encoder(name, {"backbone": str(folder), "embedding": 8}).dimension == 8


HEARD = [
    ({"sampling_rate": 8000}, "backbone is for 8000 Hz, but only those for 16000 Hz"),
    ({"sampling_rate": 16000, "do_normalize": False}, r"not normalised; .*\{normalise: false\}"),
    ('{"sampling_rate": 16', r"preprocessor_config\.json: invalid JSON .*; download it again"),
    ([16000], r"preprocessor_config\.json: contains no object; download it again"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("settings", "message"), HEARD)
def test_backbone_trained_on_other_speech(hub_folders, settings, message, tmp_path):
    file = hub_folders["wav2vec2"][0] / "preprocessor_config.json"
    file.write_text(settings if isinstance(settings, str) else json.dumps(settings))
    try:
        with pytest.raises(SasvError, match=message):
            make_encoder("wav2vec2", {"backbone": str(file.parent)})
    finally:
        file.unlink()


ABSENT = [("transformers", "neural", {}), ("peft", "peft", {"training": "lora"})]


@pytest.mark.slow
@pytest.mark.parametrize(("package", "extra", "changes"), ABSENT)
def test_missing_package_is_reported_in_one_line(
    package, extra, changes, transformers, monkeypatch
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf'{package}.*pip install "sasv\[{extra}\]"') as caught:
        make_encoder("wav2vec2", {**preset("wav2vec2", "test"), **changes})
    assert "\n" not in str(caught.value)


def test_checkpoint_that_needs_a_missing_package_names_it(transformers, monkeypatch, tmp_path):
    torch.manual_seed(0)
    encoder = make_encoder("wav2vec2", preset("wav2vec2", "test"))
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, Checkpoint(Specification(**encoder.description()), encoder.state_dict()))
    monkeypatch.setitem(sys.modules, "transformers", None)
    refused(path, r'needs transformers, which is not installed; pip install "sasv\[neural\]"')


def test_the_hub_needs_its_package(monkeypatch, tmp_path):
    monkeypatch.setenv("SASV_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for name in ("speechbrain-ecapa", "someone/model"):
        with pytest.raises(MissingExtra, match=r'huggingface_hub.*pip install "sasv\[hub\]"'):
            fetch(name)


def filled(fill, listed, prefix):
    """Return the filled entries of a reference, with counters at their initial values."""
    entries = {}
    for key, shape, kind in listed["entries"]:
        value = fill.fill_array(key, tuple(shape), 0) if shape else np.zeros((), kind)
        entries[prefix + key] = torch.from_numpy(np.asarray(value))
    return entries


@pytest.fixture(scope="module")
def w2vbert(fill):
    """WeSpeaker's w2v-BERT with adapters: the backbone without the vector of masked frames, the
    head, and entries that only training needed.
    """
    from conftest import DATA

    listed = json.loads((DATA / "peers" / "heads.json").read_text())
    backbone = filled(fill, listed["wespeaker/w2vbert-backbone"], "frontend.encoder.")
    del backbone["frontend.encoder.masked_spec_embed"]
    head = filled(fill, listed["wespeaker/w2vbert-adapter-mfa"], "")
    return backbone | head | {"projection.weight": torch.ones(7, 256)}


def test_w2v_bert_of_wespeaker_gives_its_embedding(w2vbert, transformers, fill, tmp_path):
    from conftest import DATA
    from sasv.checkpoints import spawn_encoder

    torch.save(w2vbert, tmp_path / "avg_model.pt")
    checkpoint = load_checkpoint(tmp_path / "avg_model.pt")
    config = checkpoint.specification.encoder_options["config"]
    assert (config["model_type"], config["num_attention_heads"]) == ("wav2vec2-bert", 4)
    wave = torch.from_numpy(fill.waveform(16500, 2))
    with torch.no_grad():
        found = spawn_encoder(checkpoint).eval()(wave[None])[0].numpy()
    expected = np.load(DATA / "peers" / "heads.npz")["wespeaker/w2vbert/embedding/16500"]
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def test_w2v_bert_with_other_settings_or_entries(w2vbert, transformers, tmp_path):
    path = tmp_path / "avg_model.pt"
    torch.save(w2vbert, path)
    (tmp_path / "config.yaml").write_text("model_args: {adapter_dim: 128}\n")
    refused(path, "adapter_dim 128, but the weights say 32")
    (tmp_path / "config.yaml").unlink()
    torch.save(w2vbert | {"lora.weight": torch.ones(2, 2)}, path)
    refused(path, "this format has no entries lora.weight")
    lacking = {key: v for key, v in w2vbert.items() if "distance_embedding" not in key}
    torch.save(lacking, path)
    refused(path, "looks like w2v-bert, but entry .*distance_embedding.* is missing")
