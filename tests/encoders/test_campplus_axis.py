"""CAM++ with a dimension for spoofed speech: the cosines of bona fide speech do not change, and
those of spoofs become lower.
"""

import numpy as np
import pytest
import torch

from conftest import built_encoder
from sasv.checkpoints import Checkpoint, load_checkpoint, save_checkpoint, spawn_encoder
from sasv.core.errors import SasvError
from sasv.encoders import ENCODERS, make_encoder
from sasv.encoders.inference import prepare_for_inference
from sasv.encoders.layers import SpoofAxis
from sasv.models import Specification

SMALL = ENCODERS.get("campplus").presets["test"]
PLAIN = built_encoder("campplus")
AXIS = {"spoof_axis": True}
INNER = {"spoof_axis": True, "inner_axis": True}
HEADS = INNER | {"axis_heads": 2}


def axis_encoder(options):
    """An encoder whose axis is not 0 for noise, with the weights of the encoder without axis."""
    torch.manual_seed(0)
    found = make_encoder("campplus", SMALL | options).eval()
    missing = found.load_state_dict(PLAIN.state_dict(), strict=False).missing_keys
    assert set(missing) == {"spoof_axis.weight", "spoof_axis.bias"}
    with torch.no_grad():
        found.spoof_axis.bias.fill_(1.0)
    return found.requires_grad_(False)


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


def test_the_evidence_of_several_heads_is_added():
    axis = SpoofAxis(2, heads=3).requires_grad_(False)
    axis.weight.copy_(torch.tensor([3.0, 0.0, 0.0, 2.0, -9.0, 0.0]))
    axis.bias.copy_(torch.tensor([-1.0, 0.5, 0.0]))
    found = axis(torch.tensor([[2.0, 0.0], [0.0, 4.0], [-1.0, 0.0]]))
    # relu(3 - 1) + relu(0.5) + relu(-9) = 2.5 times the length 2; relu(-1) + 2.5 + 0; 0 + 0.5 + 9
    assert found[:, -1].tolist() == [5.0, 10.0, 9.5]


@pytest.mark.parametrize("options", [AXIS, INNER, HEADS, INNER | {"frozen_blocks": 2}])
def test_batched_is_single_with_the_axis(voice, options):
    axis = axis_encoder(options)
    assert axis.dimension == PLAIN.dimension + 1
    waves = [torch.from_numpy(voice(samples, seed)) for seed, samples in enumerate((16000, 22000))]
    batch = torch.zeros(2, 22000)
    for row, wave in zip(batch, waves):
        row[: len(wave)] = wave
    with torch.no_grad():
        found = axis(batch, torch.tensor([16000, 22000]))
        for row, wave in zip(found, waves):
            np.testing.assert_allclose(row, axis(wave[None])[0], rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(row[:-1], PLAIN(wave[None])[0], rtol=1e-5, atol=1e-5)
        assert (found[:, -1] > 0).all()


def test_the_inner_axis_is_a_linear_function_of_pooled_inputs_of_the_last_block():
    """Its inputs are the means and standard deviations over time of 16 channels here."""
    axis = axis_encoder(INNER)
    assert axis.spoof_axis.weight.shape == (32,)
    weight = torch.linspace(-1, 1, 32)
    axis.spoof_axis.weight.copy_(weight)
    axis.spoof_axis.bias.fill_(0.25)
    seen = []
    block = axis.xvector["block3"]
    block.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))
    found = axis(torch.randn(1, 16000) * 0.1)[0].double()
    inputs = seen[0][0].double().numpy()
    statistics = np.append(inputs.mean(axis=1), inputs.std(axis=1, ddof=1))
    evidence = weight.double().numpy() @ statistics + 0.25
    expected = max(0.0, evidence) * float(found[:-1].norm())
    assert expected > 0
    assert float(found[-1]) == pytest.approx(expected, rel=1e-5)


def test_evidence_that_is_a_small_sum_of_large_terms_is_exact():
    """As the statistics that a trained axis reads; single precision would be wrong by 6e-4."""
    rng = np.random.default_rng(0)
    axis = SpoofAxis(600).eval().requires_grad_(False)
    axis.weight.copy_(torch.from_numpy(rng.standard_normal(600)))
    axis.bias.zero_()
    inner = torch.from_numpy(30 * rng.standard_normal(600)).float()
    terms = inner.double() * axis.weight.double()
    axis.bias.copy_(0.3 - terms.sum())
    expected = float(terms.sum() + axis.bias.double())
    found = axis(torch.tensor([[1.0, 0.0]]), inner[None])
    assert abs(float(found[0, -1]) - expected) < 1e-7
    assert axis.train()(torch.tensor([[1.0, 0.0]]), inner[None]).dtype == torch.float32


@pytest.mark.parametrize("options", [AXIS, INNER, HEADS])
def test_the_axis_is_saved_and_is_the_same_in_inference(options, tmp_path):
    encoder = axis_encoder(options)
    checkpoint = Checkpoint(Specification(**encoder.description()), encoder.state_dict())
    save_checkpoint(tmp_path / "model.safetensors", checkpoint)
    loaded = load_checkpoint(tmp_path / "model.safetensors")
    assert loaded.specification.encoder_options.items() >= options.items()
    again = spawn_encoder(loaded).eval()
    waves = torch.randn(2, 20000) * 0.1
    lengths = torch.tensor([20000, 9000])
    with torch.no_grad():
        expected = encoder(waves, lengths)
        assert torch.equal(again(waves, lengths), expected)
    prepare_for_inference(again)
    with torch.inference_mode():
        found = again(waves, lengths)
    assert (found - expected).norm() / expected.norm() < 1e-5
    assert (expected[:, -1] > 0).all()


def test_an_inner_axis_needs_an_axis_and_a_block_that_is_not_frozen():
    with pytest.raises(SasvError, match="set spoof_axis as well"):
        make_encoder("campplus", SMALL | {"inner_axis": True})
    with pytest.raises(SasvError, match="axis_heads are those of a spoof_axis"):
        make_encoder("campplus", SMALL | {"axis_heads": 2})
    with pytest.raises(SasvError, match="frozen_blocks can be at most 2"):
        make_encoder("campplus", SMALL | INNER | {"frozen_blocks": 3})


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("options", [INNER, HEADS])
def test_an_exported_inner_axis_is_that_of_the_encoder(options):
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    from sasv.core.onnx import new_session
    from sasv.export.graph import Graph, to_onnx

    encoder = axis_encoder(options)
    session = new_session(to_onnx(Graph(encoder, None)).SerializeToString(), threads=1)
    for lengths in ([16000], [30000, 7000]):
        waves = torch.randn(len(lengths), max(lengths)) * 0.1
        expected = encoder(waves, torch.tensor(lengths))
        feed = {"samples": waves.numpy(), "lengths": np.array(lengths)}
        found = session.run(["embedding"], feed)[0]
        assert np.linalg.norm(found - expected.numpy()) / expected.norm() < 1e-5
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
