"""Properties of every registered encoder, tested with its preset "test". A new encoder is tested as
soon as it is registered.
"""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.modules.batchnorm import _BatchNorm

from conftest import built_encoder
from sasv.checkpoints import (
    Checkpoint,
    Specification,
    load_checkpoint,
    save_checkpoint,
    spawn_encoder,
)
from sasv.encoders import ENCODERS, make_encoder, preset
from sasv.encoders.base import lengths_tensor, parameters_of
from sasv.encoders.cost import gflop
from sasv.encoders.inference import prepare_for_inference
from sasv.frontends import FRONTENDS


@pytest.fixture(scope="module", params=list(ENCODERS))
def encoder(request):
    return built_encoder(request.param)


@given(
    extra=st.lists(st.integers(0, 20000), min_size=2, max_size=4),
    seed=st.integers(0, 1000),
    padding=st.sampled_from([0.0, 1.0, -0.3, np.nan]),
)
@settings(max_examples=8, deadline=None)
def test_batched_equals_single(encoder, extra, seed, padding):
    """Whatever the padding contains, each embedding equals that of the waveform alone (1e-5
    relative).
    """
    rng = np.random.default_rng(seed)
    lengths = [encoder.min_samples + more for more in extra]
    waves = [
        rng.standard_normal(length).astype(np.float32) * rng.uniform(0.01, 0.5)
        for length in lengths
    ]
    batch = torch.full((len(waves), max(lengths)), padding)
    for row, wave in zip(batch, waves):
        row[: len(wave)] = torch.from_numpy(wave)
    with torch.no_grad():
        together = encoder(batch, lengths_tensor(lengths))
        for index, wave in enumerate(waves):
            alone = encoder(torch.from_numpy(wave)[None])[0]
            assert (together[index] - alone).norm() / alone.norm() < 1e-5


def test_the_shortest_waveform(encoder):
    with torch.no_grad():
        embedding = encoder(torch.randn(1, encoder.min_samples))
    assert embedding.shape == (1, encoder.dimension)
    assert torch.isfinite(embedding).all()


COARSE = {
    "log-mel": {"hop": 400},
    "kaldi": {"frame_length_ms": 25.0, "frame_shift_ms": 1000.0},
}


@pytest.mark.slow
def test_the_shortest_waveform_of_a_coarse_front_end():
    """With few frames a second, the shortest waveform still has the frames that the network
    needs.
    """
    for name in ENCODERS:
        kind = ENCODERS.get(name)
        if kind.default_frontend in COARSE:
            options = {**kind.default_frontend_options, **COARSE[kind.default_frontend]}
            encoder = make_encoder(name, preset(name, "test"), frontend_options=options).eval()
            with torch.no_grad():
                embedding = encoder(torch.randn(1, encoder.min_samples))
            assert torch.isfinite(embedding).all(), name


def test_evaluation_is_deterministic(encoder):
    wave = torch.randn(1, 2 * encoder.min_samples)
    with torch.no_grad():
        assert torch.equal(encoder(wave), encoder(wave))


@pytest.mark.slow
def test_forward_does_not_branch_on_data():
    """Tensors without values can be processed, so there is no branch on data and no synchronisation
    with a device.
    """
    for name in ENCODERS:
        with FakeTensorMode(), torch.no_grad():
            encoder = make_encoder(name, preset(name, "test")).eval()
            waves = torch.empty(3, 2 * encoder.min_samples)
            assert encoder(waves, torch.ones(3, dtype=torch.long)).shape == (3, encoder.dimension)


def test_options_round_trip(encoder):
    description = json.loads(json.dumps(encoder.description()))
    specification = Specification(**description)
    again = spawn_encoder(Checkpoint(specification, encoder.state_dict()), fill=False)
    assert again.options == encoder.options
    assert again.frontend.options == encoder.frontend.options
    assert list(again.state_dict()) == list(encoder.state_dict())
    assert description["sample_rate"] == encoder.frontend.sample_rate
    assert FRONTENDS.get(description["frontend"]) is type(encoder.frontend)
    assert ENCODERS.get(description["encoder"]) is type(encoder)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(ENCODERS))
def test_presets_can_be_made_and_counted(name):
    sizes = {}
    for size in ("published", "tiny", "test"):
        with torch.device("meta"):
            sizes[size] = parameters_of(make_encoder(name, preset(name, size)))
    assert sizes["test"] < sizes["tiny"] < sizes["published"]
    assert gflop(name, preset(name, "test"), 1.0, backward=False) > 0
    assert ENCODERS.get(name).__doc__


def test_gradients_reach_every_parameter(encoder):
    own = built_encoder(encoder.name).train()
    own(torch.randn(4, 8 * own.min_samples) * 0.1).mul(
        torch.randn(4, own.dimension)
    ).sum().backward()
    for key, parameter in own.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, key
            assert parameter.dim() < 2 or parameter.grad.any(), key


def test_parameter_groups_hold_every_parameter_once(encoder):
    groups = encoder.parameter_groups()
    grouped = [id(parameter) for group in groups for parameter in group.parameters]
    assert sorted(grouped) == sorted(id(parameter) for parameter in encoder.parameters())
    assert all(group.lr_scale >= 0 for group in groups)
    assert len({group.name for group in groups}) == len(groups)


def test_save_and_load(encoder, tmp_path):
    checkpoint = Checkpoint(Specification(**encoder.description()), encoder.state_dict())
    save_checkpoint(tmp_path / "model.safetensors", checkpoint)
    loaded = load_checkpoint(tmp_path / "model.safetensors")
    assert loaded.specification == checkpoint.specification
    again = spawn_encoder(loaded).eval()
    waves = torch.randn(2, 3 * encoder.min_samples) * 0.1
    with torch.no_grad():
        assert torch.equal(again(waves), encoder(waves))


def test_state_dict_has_only_expected_entries(encoder):
    """It contains parameters and statistics of batch norms only. Constants that follow from the
    options are not stored.
    """
    statistics = {
        f"{name}.{buffer}".lstrip(".")
        for name, part in encoder.named_modules()
        if isinstance(part, _BatchNorm)
        for buffer, _ in part.named_buffers(recurse=False)
    }
    stored = (
        set(encoder.state_dict()) - {name for name, _ in encoder.named_parameters()} - statistics
    )
    frontend = {name for name in stored if name.startswith(f"{encoder.frontend_attribute}.")}
    # the front-end of the published system is in its state dict, as in the published files
    assert stored == (frontend if encoder.frontend.name == "log-mel" else set())


def test_embeddings_are_unchanged_after_preparation_for_inference(encoder):
    """Embeddings, alone and in a batch, are equal to 1e-5, and the state dict is bit-identical."""
    own = built_encoder(encoder.name)
    prepare_for_inference(own)
    assert list(own.state_dict()) == list(encoder.state_dict())
    for value, known in zip(own.state_dict().values(), encoder.state_dict().values()):
        assert torch.equal(value, known)
    least = encoder.min_samples
    waves = torch.randn(3, 5 * least) * 0.1
    with torch.no_grad():
        for lengths in (None, lengths_tensor([5 * least, 2 * least, least])):
            expected = encoder(waves, lengths)
            assert (own(waves, lengths) - expected).norm() / expected.norm() < 1e-5
            with torch.inference_mode():
                found = own(waves, lengths)
            assert (found - expected).norm() / expected.norm() < 1e-5


def test_embeddings_in_bfloat16_are_close(encoder):
    """As ``Model`` computes them with the precision bfloat16, alone and in a batch."""
    own = built_encoder(encoder.name)
    prepare_for_inference(own)
    least = encoder.min_samples
    waves = torch.randn(3, 5 * least) * 0.1
    for lengths in (None, lengths_tensor([5 * least, 2 * least, least])):
        with torch.inference_mode():
            expected = own(waves, lengths)
            with torch.autocast("cpu", torch.bfloat16):
                found = own(waves, lengths)
        assert torch.isfinite(found).all()
        assert torch.cosine_similarity(found.float(), expected).min() > 0.99
