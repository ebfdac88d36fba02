"""Encoders at small sizes: batched = single, sizes, SpecAugment."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sasv.core.errors import SasvError
from sasv.encoders import ENCODERS, make_encoder, preset
from sasv.encoders.base import lengths_tensor
from sasv.frontends.logmel import LogMel, mel_filters
from sasv.training.spec_augment import BANDS, FRAMES, spec_augment


def small(name, seed=0):
    torch.manual_seed(seed)
    encoder = make_encoder(name, preset(name, "test"))
    for part in encoder.modules():  # batch norms that do something
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            part.running_mean.normal_(0, 0.3)
            part.running_var.uniform_(0.5, 1.5)
            part.bias.data.normal_(0, 0.3)
    return encoder.eval()


@pytest.fixture(scope="module", params=list(ENCODERS))
def encoder(request):
    return small(request.param)


@given(
    lengths=st.lists(st.integers(1600, 24000), min_size=2, max_size=5),
    seed=st.integers(0, 1000),
    padding=st.sampled_from([0.0, 1.0, -0.3]),
)
@settings(max_examples=25, deadline=None)
def test_batches_of_unequal_length_equal_single_files(encoder, lengths, seed, padding):
    """Whatever stands in the padding, each embedding is that of the file alone (1e-5 relative)."""
    rng = np.random.default_rng(seed)
    waves = [rng.standard_normal(length).astype(np.float32) * rng.uniform(0.01, 0.5) for length in lengths]
    batch = torch.full((len(waves), max(lengths)), padding)
    for row, wave in zip(batch, waves):
        row[: len(wave)] = torch.from_numpy(wave)
    with torch.no_grad():
        together = encoder(batch, lengths_tensor(lengths))
        for index, wave in enumerate(waves):
            alone = encoder(torch.from_numpy(wave)[None])[0]
            assert (together[index] - alone).norm() / alone.norm() < 1e-5


@pytest.mark.parametrize("name", list(ENCODERS))
def test_masking_holds_at_published_sizes(name):
    torch.manual_seed(1)
    encoder = make_encoder(name).eval()
    waves = torch.randn(2, 20000) * 0.1
    with torch.no_grad():
        together = encoder(waves, lengths_tensor([20000, 9000]))
        alone = encoder(waves[1:, :9000])[0]
    assert (together[1] - alone).norm() / alone.norm() < 1e-5


def test_shortest_file(encoder):
    with torch.no_grad():
        embedding = encoder(torch.randn(1, encoder.min_samples))
    assert torch.isfinite(embedding).all()


def test_unknown_names_say_what_is_known():
    with pytest.raises(SasvError, match="did you mean ecapa-tdnn"):
        ENCODERS.get("ecapa-tdn")
    with pytest.raises(SasvError, match="unknown option 'width' of encoder ecapa-tdnn; known: .*channels"):
        make_encoder("ecapa-tdnn", {"width": 3})
    with pytest.raises(SasvError, match="channels of encoder ecapa-tdnn must be a whole number, from 1"):
        make_encoder("ecapa-tdnn", {"channels": 0})
    with pytest.raises(SasvError, match="multiple of scale"):
        make_encoder("ecapa-tdnn", {"channels": 30})
    with pytest.raises(SasvError, match="unknown front-end 'log-mle'; did you mean log-mel"):
        make_encoder("ecapa-tdnn", {}, "log-mle")
    with pytest.raises(SasvError, match="option mels of front-end log-mel must be a whole number"):
        make_encoder("ecapa-tdnn", {}, "log-mel", {"mels": "80"})


def test_spec_augment_masks_within_bounds():
    torch.manual_seed(0)
    features = torch.ones(200, 80, 120)
    masked = spec_augment(features.clone()) == 0
    frames, bands = masked.all(dim=1), masked.all(dim=2)
    assert int(frames.sum(dim=1).max()) == FRAMES - 1
    assert int(bands.sum(dim=1).max()) == BANDS - 1
    assert int(frames.sum(dim=1).min()) == 0
    # one mask each: contiguous
    for row in frames:
        positions = row.nonzero()[:, 0]
        assert not len(positions) or int(positions[-1] - positions[0]) == len(positions) - 1


def test_evaluation_mode_does_not_augment(encoder):
    wave = torch.randn(1, 16000)
    with torch.no_grad():
        assert torch.equal(encoder(wave), encoder(wave))


def test_logmel_removes_the_mean_and_ignores_level_changes():
    frontend = LogMel()
    wave = torch.randn(1, 8000) * 0.2
    features = frontend(wave)
    assert features.shape == (1, 80, 8000 // 160 + 1)
    assert features.mean(dim=2).abs().max() < 1e-4
    assert (features - frontend(wave * 2)).abs().max() < 0.05
    assert mel_filters().shape == (257, 80)
