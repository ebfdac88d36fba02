"""The recurrent layer of the speech detector is the same in ONNX Runtime, in NumPy, and in PyTorch,
whole and in parts.
"""

from pathlib import Path

import numpy as np
import pytest

import sasv.audio
from conftest import shared
from sasv.audio import read_audio, speech
from sasv.audio.recurrent import Recurrence
from sasv.core import onnx as core_onnx

GRAPH = Path(sasv.audio.__file__).with_name("silero_vad_lstm.onnx")
INPUTS, SIZE = 128, 128


def made():
    """Return the graph whose bytes are in the file: an LSTM without weights."""
    helper = pytest.importorskip("onnx.helper")
    kind = pytest.importorskip("onnx").TensorProto.FLOAT
    shapes = {
        "inputs": ["frames", 1, INPUTS],
        "weight_ih": [1, 4 * SIZE, INPUTS],
        "weight_hh": [1, 4 * SIZE, SIZE],
        "bias": [1, 8 * SIZE],
        "hidden": [1, 1, SIZE],
        "cell": [1, 1, SIZE],
        "states": ["frames", 1, 1, SIZE],
        "last_hidden": [1, 1, SIZE],
        "last_cell": [1, 1, SIZE],
    }
    values = {
        name: helper.make_tensor_value_info(name, kind, shape) for name, shape in shapes.items()
    }
    names = list(shapes)
    inputs, outputs = names[:6], names[6:]
    lstm = helper.make_node("LSTM", [*inputs[:4], "", *inputs[4:]], outputs, hidden_size=SIZE)
    graph = helper.make_graph(
        [lstm], "lstm", [values[name] for name in inputs], [values[name] for name in outputs]
    )
    opset = helper.make_opsetid("", 14)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8)


def weights(seed=0):
    """Return random weights."""
    rng = np.random.default_rng(seed)
    shapes = {
        "weight_ih": (4 * SIZE, INPUTS),
        "weight_hh": (4 * SIZE, SIZE),
        "bias_ih": (4 * SIZE,),
        "bias_hh": (4 * SIZE,),
    }
    return {
        name: rng.uniform(-0.2, 0.2, shape).astype(np.float32) for name, shape in shapes.items()
    }


def sequence(frames, seed=0):
    return np.random.default_rng(seed).standard_normal((frames, INPUTS)).astype(np.float32)


@pytest.fixture(params=["native", "numpy"])
def layer(request):
    if request.param == "native":
        pytest.importorskip("onnxruntime")
    found = Recurrence(weights(), native=request.param == "native")
    assert found.native == (request.param == "native")
    return found


def test_the_file_is_the_graph_made_here():
    assert GRAPH.read_bytes() == made().SerializeToString()


def test_layer_equals_that_of_pytorch(layer):
    torch = pytest.importorskip("torch")
    reference = torch.nn.LSTM(INPUTS, SIZE)
    given = {f"{name}_l0": torch.from_numpy(value) for name, value in weights().items()}
    reference.load_state_dict(given)
    with torch.inference_mode():
        expected, (hidden, cell) = reference(torch.from_numpy(sequence(300)))
    found, state = layer(sequence(300), layer.start())
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-6)
    np.testing.assert_allclose(state, (hidden[0].numpy(), cell[0].numpy()), atol=1e-5)


def test_parts_equal_the_whole(layer):
    inputs = sequence(100)
    whole, last = layer(inputs, layer.start())
    first, state = layer(inputs[:37], layer.start())
    second, end = layer(inputs[37:], state)
    np.testing.assert_allclose(np.concatenate((first, second)), whole, atol=1e-6)
    np.testing.assert_allclose(end, last, atol=1e-6)


def by_numpy(monkeypatch):
    """Make the detector use NumPy, as where ONNX Runtime is not installed."""
    prefix = "decoder.rnn."
    own = {
        name.removeprefix(prefix): value
        for name, value in speech._weights().items()
        if name.startswith(prefix)
    }
    layer = Recurrence(own, native=False)
    monkeypatch.setattr(speech, "_recurrence", lambda: layer)


def compare(waves, monkeypatch):
    """Compare probabilities and spans of both ways."""
    pytest.importorskip("onnxruntime")
    assert speech._recurrence().native
    native = [(speech.speech_probabilities(wave), speech.net_speech(wave)) for wave in waves]
    by_numpy(monkeypatch)
    for wave, (probabilities, activity) in zip(waves, native, strict=True):
        np.testing.assert_allclose(speech.speech_probabilities(wave), probabilities, atol=1e-5)
        assert speech.net_speech(wave) == activity


def test_speech_is_the_same_without_onnx_runtime(voice, monkeypatch):
    rng = np.random.default_rng(0)
    noise = (0.1 * rng.standard_normal(40000)).astype(np.float32)
    short = voice(3 * speech.DETECTOR_RATE)
    compare([short, 4 * short[:30000] + noise[:30000], noise, short[:100]], monkeypatch)


@pytest.mark.speech
def test_real_speech_is_the_same_without_onnx_runtime(monkeypatch):
    files = sorted(shared("speech", "GLOBE").rglob("*.flac"))[::20][:40]
    compare([read_audio(path) for path in files], monkeypatch)


def test_long_recordings_are_computed_in_parts(voice, monkeypatch):
    wave = voice(5 * speech.DETECTOR_RATE)
    whole = speech.speech_probabilities(wave)
    monkeypatch.setattr(speech, "FRAMES_AT_ONCE", 10)
    np.testing.assert_allclose(speech.speech_probabilities(wave), whole, atol=1e-5)


def test_numpy_is_used_where_onnx_runtime_is_not_installed(monkeypatch):
    from sasv.audio import recurrent
    from sasv.core.errors import MissingExtra

    def missing():
        raise MissingExtra("onnxruntime", "runtime", "this")

    monkeypatch.setattr(core_onnx, "onnx_runtime", missing)
    recurrent._session.cache_clear()
    try:
        assert not Recurrence(weights()).native
    finally:
        recurrent._session.cache_clear()
