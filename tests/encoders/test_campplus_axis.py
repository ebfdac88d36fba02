"""CAM++ with a dimension for spoofed speech: the cosines of bona fide speech do not change, and
those of spoofs become lower.
"""

import numpy as np
import pytest
import torch

from sasv.encoders import ENCODERS, make_encoder
from sasv.encoders.layers import SpoofAxis

SMALL = ENCODERS.get("campplus").presets["test"]


def test_spoof_axis_is_zero_for_bona_fide_speech_and_lowers_cosines_of_spoofs():
    axis = SpoofAxis(4)
    with torch.no_grad():
        axis.weight.copy_(torch.tensor([0.0, 0.0, 3.0, 0.0]))
        axis.bias.fill_(-1.0)
        found = axis(torch.tensor([[2.0, 0.0, 0.0, 0.0], [0.0, 0.0, 2.0, 0.0], [0.0] * 4]))
    # 3 * 0 - 1 < 0; 3 * 1 - 1 = 2 times the length 2; and a vector without direction
    assert found.tolist() == [[2, 0, 0, 0, 0], [0, 0, 2, 0, 4], [0] * 5]
    cosine = found[1] @ torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0]) / found[1].norm()
    assert float(cosine) == pytest.approx(1 / np.sqrt(5))


def test_batched_is_single_with_the_axis(voice):
    torch.manual_seed(0)
    plain = make_encoder("campplus", SMALL).eval()
    axis = make_encoder("campplus", SMALL | {"spoof_axis": True}).eval()
    missing = axis.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert set(missing) == {"spoof_axis.weight", "spoof_axis.bias"}
    assert axis.dimension == plain.dimension + 1
    waves = [torch.from_numpy(voice(samples, seed)) for seed, samples in enumerate((16000, 22000))]
    batch = torch.zeros(2, 22000)
    for row, wave in zip(batch, waves):
        row[: len(wave)] = wave
    with torch.no_grad():
        axis.spoof_axis.bias.fill_(1.0)
        found = axis(batch, torch.tensor([16000, 22000]))
        for row, wave in zip(found, waves):
            np.testing.assert_allclose(row, axis(wave[None])[0], rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(row[:-1], plain(wave[None])[0], rtol=1e-5, atol=1e-5)
        assert (found[:, -1] > 0).all()


def test_frozen_blocks_keep_their_weights_and_statistics():
    encoder = make_encoder("campplus", SMALL | {"frozen_blocks": 2}).train()
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    parameters = [
        x for group in encoder.parameter_groups() if group.lr_scale for x in group.parameters
    ]
    encoder(torch.randn(2, 16000)).square().sum().backward()
    torch.optim.SGD(parameters, lr=0.1).step()
    moved = {
        key for key, value in encoder.state_dict().items() if not torch.equal(value, before[key])
    }
    trained = ("xvector.block3", "xvector.transit3", "xvector.out_nonlinear", "xvector.dense")
    assert moved and all(key.startswith(trained) for key in moved)
    assert {key.split(".")[1] for key in moved} >= {"block3", "transit3", "dense"}
