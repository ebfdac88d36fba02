"""Self-supervised backbones: batched = single for every type, fine-tuning, and comparisons of heads
and features with the originals.
"""

import json

import numpy as np
import pytest
import torch

from conftest import DATA, next_stage
from sasv.core.errors import SasvError
from sasv.encoders import make_encoder, preset
from sasv.encoders.base import lengths_tensor
from sasv.encoders.layer_heads import MhfaHead

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed (extra neural)"
)

from sasv.encoders.wav2vec2 import TINY  # noqa: E402

STABLE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
CASES = {
    "wavlm": ("wav2vec2", {"config": TINY}),
    "wavlm-large": ("wav2vec2", {"config": TINY | STABLE, "head": "mhfa"}),
    "hubert": ("wav2vec2", {"config": TINY | {"model_type": "hubert"}, "head": "mhfa"}),
    "xls-r": (
        "wav2vec2",
        {"config": TINY | STABLE | {"model_type": "wav2vec2"}, "head": "adapter-mfa"},
    ),
    "w2v-bert": ("w2v-bert", preset("w2v-bert", "test")),
    "whisper": ("whisper", preset("whisper", "test")),
}
HEADS = json.loads((DATA / "peers" / "heads.json").read_text())


def made(case, **options):
    torch.manual_seed(0)
    name, base = CASES[case]
    return make_encoder(
        name, base | {"embedding": 16, "adapter": 8, "compression": 8, "heads": 2} | options
    )


def filled(fill, name, prefix):
    return {
        f"{prefix}{key}": torch.from_numpy(fill.fill_array(key, tuple(shape), 0))
        for key, shape, _ in HEADS[name]["entries"]
        if shape
    }


@pytest.mark.parametrize("case", list(CASES))
def test_batches_of_unequal_length_equal_single_files(case):
    encoder = made(case).eval()
    lengths = [16000, 9123, encoder.min_samples, 12345]
    batch = torch.randn(len(lengths), max(lengths)) * 0.1
    with torch.no_grad():
        together = encoder(batch, lengths_tensor(lengths))
        for row, length, found in zip(batch, lengths, together):
            alone = encoder(row[None, :length])[0]
            assert (found - alone).norm() / alone.norm() < 1e-5


@pytest.mark.parametrize("case", list(CASES))
@pytest.mark.parametrize("training", ["frozen", "partial", "lora", "whole"])
def test_only_trainable_parameters_change(case, training):
    if training == "lora":
        pytest.importorskip("peft", reason="peft is not installed (extra peft)")
    encoder = made(case, training=training, last_layers=1, lr_scale=0.5, layer_decay=0.5).train()
    groups = encoder.parameter_groups()
    assert sorted(id(p) for group in groups for p in group.parameters) == sorted(
        map(id, encoder.parameters())
    )
    scales = {group.name: group.lr_scale for group in groups}
    assert scales["head"] == 1.0
    top = f"backbone layer {len(encoder.layers())}"
    expected = {"frozen": 0.0, "partial": 0.5, "lora": 0.0, "whole": 0.5}[training]
    assert scales[top] == expected
    assert scales["backbone layer 1"] == (
        0.5**3 if training == "whole" and len(encoder.layers()) == 3 else 0.0
    )
    if training == "lora":
        assert scales[f"{top}, adapters"] == 1.0
    encoder(torch.randn(2, 8000) * 0.1).square().sum().backward()
    adapters = [p.grad for name, p in encoder.named_parameters() if ".lora_B" in name]
    if training == "lora":
        assert adapters and all(
            gradient is not None and gradient.abs().sum() > 0 for gradient in adapters
        )
    if training == "frozen":
        assert all(parameter.grad is None for parameter in encoder.backbone.parameters())
        assert not any(part.training for part in encoder.backbone.modules())


@pytest.mark.parametrize("training", ["whole", "lora"])
def test_encoder_is_rebuilt_from_its_checkpoint_alone(training, tmp_path):
    from sasv.checkpoints import Checkpoint, load_checkpoint, save_checkpoint, spawn_encoder
    from sasv.models import Specification

    folder = tmp_path / "backbone"
    config = {name: value for name, value in TINY.items() if name != "model_type"}
    transformers.WavLMModel(transformers.WavLMConfig(**config)).save_pretrained(folder)
    encoder = make_encoder(
        "wav2vec2", {"backbone": str(folder), "training": training, "embedding": 16}
    ).eval()
    again = make_encoder(
        "wav2vec2", {"backbone": str(folder), "training": training, "embedding": 16}
    ).eval()
    assert all(
        torch.equal(a, b)
        for a, b in zip(encoder.backbone.parameters(), again.backbone.parameters())
    ) or (training == "lora")
    specification = Specification(**encoder.description())
    save_checkpoint(tmp_path / "m.safetensors", Checkpoint(specification, encoder.state_dict()))
    for file in folder.iterdir():
        file.unlink()
    loaded = spawn_encoder(load_checkpoint(tmp_path / "m.safetensors")).eval()
    waves = torch.randn(1, 8000) * 0.1
    with torch.no_grad():
        assert torch.equal(loaded(waves), encoder(waves))


@pytest.mark.parametrize("name", ["wav2vec2", "w2v-bert", "whisper"])
def test_the_options_of_a_stage_fit_the_checkpoint_of_the_one_before(name, tmp_path):
    """A short configuration equals the full one in the checkpoint."""
    from sasv.training.modules import make_modules

    encoder, wanted = next_stage(name, tmp_path / "stage1.safetensors")
    assert make_modules(wanted, wanted, ["a", "b"])[0].option_values() == encoder.option_values()
    wanted.encoder_options |= {"training": "partial", "last_layers": 1, "lr_scale": 0.3}
    again = make_modules(wanted, wanted, ["a", "b"])[0]
    assert (again.options.training, again.options.lr_scale) == ("partial", 0.3)
    scales = {group.name: group.lr_scale for group in again.parameter_groups()}
    assert (
        scales[f"backbone layer {len(again.layers())}"] == 0.3 and scales["backbone layer 1"] == 0
    )
    wanted.encoder_options |= {"training": "lora"}
    with pytest.raises(SasvError, match="training whole and not lora"):
        make_modules(wanted, wanted, ["a", "b"])


def test_backbones_that_cannot_be_used_are_errors(tmp_path):
    with pytest.raises(
        SasvError, match="nowhere: there is no such backbone on this machine.*hf download"
    ):
        make_encoder("wav2vec2", {"backbone": str(tmp_path / "nowhere")})
    transformers.WavLMConfig().save_pretrained(tmp_path)
    with pytest.raises(SasvError, match="contains a configuration, but no weights"):
        make_encoder("wav2vec2", {"backbone": str(tmp_path)})
    with pytest.raises(
        SasvError, match="has the type wavlm, but the encoder w2v-bert needs one of: wav2vec2-bert"
    ):
        make_encoder("w2v-bert", {"backbone": str(tmp_path)})
    with pytest.raises(SasvError, match="needs 80 bands, not 128"):
        make_encoder("whisper", preset("whisper", "test"), "whisper", {"mels": 128})


def test_mhfa_equals_that_of_wedefense(fill):
    expected = np.load(DATA / "peers" / "heads.npz")
    head = MhfaHead(5, 96, 192, 8, 32)
    head.load_state_dict(filled(fill, "wedefense/mhfa", ""))
    layers = torch.from_numpy(expected["wedefense/mhfa/input"]).permute(3, 0, 2, 1)
    found = head(list(layers), None)[0].detach().numpy()
    assert np.abs(found - expected["wedefense/mhfa/embedding"]).max() < 1e-6


def test_w2v_bert_with_adapters_equals_that_of_wespeaker(fill):
    expected = np.load(DATA / "peers" / "heads.npz")
    config = HEADS["wespeaker/w2vbert-backbone"]["config"]
    encoder = make_encoder(
        "w2v-bert", {"config": config, "head": "adapter-mfa", "adapter": 32}
    ).eval()
    entries = filled(fill, "wespeaker/w2vbert-backbone", "backbone.")
    entries |= filled(fill, "wespeaker/w2vbert-adapter-mfa", "head.")
    missing, unexpected = encoder.load_state_dict(entries, strict=False)
    assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing)
    for index, length in enumerate((40000, 52321, 16500)):
        with torch.no_grad():
            found = encoder(torch.from_numpy(fill.waveform(length, index))[None])[0].numpy()
        wanted = expected[f"wespeaker/w2vbert/embedding/{length}"]
        assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("mels", [80, 128])
def test_whisper_features_equal_those_of_transformers(mels, fill):
    from sasv.frontends import make_frontend

    wave = fill.waveform(16500, 2)
    original = transformers.WhisperFeatureExtractor(feature_size=mels)
    expected = original(wave, sampling_rate=16000, return_tensors="np", padding="do_not_pad")[
        "input_features"
    ][0]
    found = make_frontend("whisper", {"mels": mels})(torch.from_numpy(wave)[None])[0].numpy()
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-5
