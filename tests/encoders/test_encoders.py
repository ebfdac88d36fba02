"""Encoders: masks at published sizes, invalid options, and SpecAugment. test_contract.py tests
every encoder.
"""

import pytest
import torch

from conftest import PUBLISHED_NAMES
from sasv.core.errors import SasvError
from sasv.encoders import ENCODERS, make_encoder
from sasv.encoders.base import lengths_tensor
from sasv.training.spec_augment import BANDS, FRAMES, spec_augment


@pytest.mark.slow
@pytest.mark.parametrize("name", list(PUBLISHED_NAMES))
def test_masking_holds_at_published_sizes(name):
    torch.manual_seed(1)
    encoder = make_encoder(name).eval()
    waves = torch.randn(2, 20000) * 0.1
    with torch.no_grad():
        together = encoder(waves, lengths_tensor([20000, 9000]))
        alone = encoder(waves[1:, :9000])[0]
    assert (together[1] - alone).norm() / alone.norm() < 1e-5


def test_unknown_name_error_lists_known_names():
    with pytest.raises(SasvError, match="did you mean ecapa-tdnn"):
        ENCODERS.get("ecapa-tdn")
    with pytest.raises(
        SasvError, match="unknown option 'width' of encoder ecapa-tdnn; its options are: .*channels"
    ):
        make_encoder("ecapa-tdnn", {"width": 3})
    with pytest.raises(
        SasvError, match="channels of encoder ecapa-tdnn must be a whole number, from 1"
    ):
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
