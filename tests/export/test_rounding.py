"""Rounding to eight bits, and the correction of biases for it."""

import numpy as np
import pytest

from sasv.core.onnx import new_session
from sasv.export import quantise
from sasv.export.rounding import corrected, input_means, rounded
from sasv.runtime.record import EMBEDDING, LENGTHS, SAMPLES

pytest.importorskip("onnx", reason="onnx is not installed")
CHANNELS = 64


@pytest.fixture(scope="module")
def network():
    """Three convolutions, the middle one with a bias, after rectifiers, whose outputs are averaged
    over time; ``unused`` stays.
    """
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    shapes = {"a": (CHANNELS, 1, 99), "b": (CHANNELS, CHANNELS, 3), "c": (CHANNELS, CHANNELS, 1)}
    constants = {f"{name}.weight": rng.standard_normal(shape) for name, shape in shapes.items()}
    constants["b.bias"] = rng.standard_normal(CHANNELS)
    constants = {name: value.astype(np.float32) for name, value in constants.items()}
    initial = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    initial += [numpy_helper.from_array(np.array([axis]), f"axis{axis}") for axis in (1, 2)]
    nodes = [helper.make_node("Unsqueeze", [SAMPLES, "axis1"], ["waves"])]
    last = "waves"
    for name in shapes:
        inputs = [one for one in (f"{name}.weight", f"{name}.bias") if one in constants]
        nodes.append(helper.make_node("Conv", [last, *inputs], [name], name))
        nodes.append(helper.make_node("Relu", [name], [f"{name}+"], f"relu {name}"))
        last = f"{name}+"
    nodes.append(helper.make_node("ReduceMean", [last, "axis2"], [EMBEDDING], keepdims=0))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [
            value(SAMPLES, TensorProto.FLOAT, ["batch", "samples"]),
            value(LENGTHS, TensorProto.INT64, ["batch"]),
        ],
        [value(EMBEDDING, TensorProto.FLOAT, ["batch", CHANNELS])],
        initial,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.fixture(scope="module")
def waves():
    rng = np.random.default_rng(1)
    return [rng.standard_normal(4000).astype(np.float32) for _ in range(6)]


def embedded(proto, wave):
    data = {SAMPLES: wave[None], LENGTHS: np.array([len(wave)])}
    return new_session(proto.SerializeToString(), 1).run([EMBEDDING], data)[0]


def test_weights_are_rounded_as_the_quantiser_does(network, waves):
    from onnx import numpy_helper

    proto = quantise._quantised(network, ["b", "c"], waves)
    found = {one.name: numpy_helper.to_array(one) for one in proto.graph.initializer}
    for one in network.graph.initializer:
        if one.name in ("b.weight", "c.weight"):
            steps = found[f"{one.name}_quantized"].astype(np.float64)
            scale, zero = (
                found[f"{one.name}_{kind}"].astype(np.float64).reshape(-1, 1, 1)
                for kind in ("scale", "zero_point")
            )
            expected = rounded(numpy_helper.to_array(one))
            np.testing.assert_allclose((steps - zero) * scale, expected, atol=1e-6)
    assert rounded(np.zeros((2, 3))).tolist() == np.zeros((2, 3)).tolist()


def test_corrected_biases_keep_the_mean_of_every_channel(network, waves):
    from onnx import numpy_helper

    names = ["b", "c"]
    assert input_means(network, ["no layer"], waves) == {}
    means = input_means(network, names, waves)
    assert {name: len(values) for name, values in means.items()} == {"a+": 64, "b+": 64}
    expected = [embedded(network, wave) for wave in waves]
    errors = []
    for given in ({name: np.zeros(CHANNELS) for name in means}, means):
        found = corrected(network, names, given)
        for one in found.graph.initializer:
            if one.name in ("b.weight", "c.weight"):
                coarse = rounded(numpy_helper.to_array(one))
                one.CopyFrom(numpy_helper.from_array(coarse, one.name))
        errors.append(np.mean([abs(embedded(found, w) - e) for w, e in zip(waves, expected)]))
    assert 0 < errors[1] < errors[0] / 4
    assert {one.name for one in found.graph.initializer} == {
        one.name for one in network.graph.initializer if one.name != "b.bias"
    } | {"b.corrected_bias", "c.corrected_bias"}


def test_a_restored_layer_has_its_exact_weights_and_bias(network, waves):
    names = ["b", "c"]
    means = input_means(network, names, waves)
    whole = quantise._quantised(corrected(network, names, means), names, waves)
    exact = embedded(quantise.restored(whole, network, set(names)), waves[0])
    np.testing.assert_allclose(exact, embedded(network, waves[0]), rtol=1e-5)
