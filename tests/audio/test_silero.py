"""The network of the speech detector is the same in ONNX Runtime, in NumPy, and in the package
silero-vad (see test_speech), whole and in parts.
"""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import sasv.audio
from conftest import shared
from sasv.audio import read_audio, silero, speech
from sasv.audio.silero import CONTEXT, FRAME, HOP, STRIDES, WINDOW, Detector, as_inputs
from sasv.core import onnx as core_onnx
from sasv.core.errors import MissingExtra

FOLDER = Path(sasv.audio.__file__).parent
SIZE = 128


def made():
    """Return the graph whose bytes are in the file: the network without weights."""
    helper = pytest.importorskip("onnx.helper")
    numpy_helper = pytest.importorskip("onnx.numpy_helper")
    kind = pytest.importorskip("onnx").TensorProto.FLOAT
    nodes = []
    constants = {}

    def constant(*values):
        name = "_".join(["constant", *map(str, values)])
        constants[name] = numpy_helper.from_array(np.array(values, np.int64), name)
        return name

    def add(operator, name, *inputs, **attributes):
        nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def windows(name, values, starts, length, step=1):
        """Every slice (frames, steps, channels) begins at one of the steps."""
        axis, step = constant(1), constant(step)
        return [
            add("Slice", f"{name}_{start}", values, constant(start), constant(end), axis, step)
            for start, end in ((start, start + length) for start in starts)
        ]

    padded = add("Pad", "padded", "frames", constant(0, 0, 0, CONTEXT), mode="reflect")
    starts = range(0, FRAME + 2 * CONTEXT - WINDOW + 1, HOP)
    rows = [
        add("Unsqueeze", f"row_{row}", row, constant(1))
        for row in windows("window", padded, starts, WINDOW)
    ]
    parts = add("MatMul", "parts", add("Concat", "rows", *rows, axis=1), "stft")
    bins = WINDOW // 2 + 1
    nodes.append(helper.make_node("Split", [parts, constant(bins, bins)], ["re", "im"], axis=2))
    powers = [add("Mul", f"{part}_power", part, part) for part in ("re", "im")]
    values = add("Sqrt", "magnitude", add("Add", "power", *powers))
    steps = len(starts)
    for layer, stride in enumerate(STRIDES):
        ends = constant(0, 1, 0, 0, 1, 0)
        padded = add("Pad", f"padded{layer}", values, ends)
        taps = windows(f"tap{layer}", padded, range(3), steps, stride)
        flat = add("Concat", f"taps{layer}", *taps, axis=2)
        product = add("MatMul", f"product{layer}", flat, f"weight{layer}")
        values = add("Relu", f"values{layer}", add("Add", f"sum{layer}", product, f"bias{layer}"))
        steps //= stride
    given = [values, "weight_ih", "weight_hh", "bias", "", "hidden", "cell"]
    states = ["states", "last_hidden", "last_cell"]
    nodes.append(helper.make_node("LSTM", given, states, hidden_size=SIZE))
    logits = add("MatMul", "logits", add("Relu", "shown", "states"), "last_weight")
    add("Sigmoid", "probabilities", add("Add", "biased", logits, "last_bias"))

    shapes = {"frames": ["frames", CONTEXT + FRAME], "hidden": [1, 1, SIZE], "cell": [1, 1, SIZE]}
    weights = load_file(FOLDER / "silero_vad_16k.safetensors")
    shapes |= {name: list(value.shape) for name, value in as_inputs(weights).items()}
    ends = {
        "probabilities": ["frames", 1, 1, 1],
        "last_hidden": [1, 1, SIZE],
        "last_cell": [1, 1, SIZE],
    }
    inputs, outputs = (
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in some.items()]
        for some in (shapes, ends)
    )
    graph = helper.make_graph(nodes, "silero_vad", inputs, outputs, list(constants.values()))
    opset = helper.make_opsetid("", 14)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8)


@pytest.fixture(params=["native", "numpy"])
def detector(request):
    if request.param == "native":
        pytest.importorskip("onnxruntime")
    found = Detector(native=request.param == "native")
    assert found.native == (request.param == "native")
    return found


def frames(count, seed=0):
    found = np.random.default_rng(seed).standard_normal((count, CONTEXT + FRAME))
    return (0.1 * found).astype(np.float32)


def test_the_file_is_the_graph_made_here():
    assert (FOLDER / "silero_vad.onnx").read_bytes() == made().SerializeToString()


def test_parts_equal_the_whole(detector):
    given = frames(100)
    whole, last = detector(given, detector.start())
    first, state = detector(given[:37], detector.start())
    second, end = detector(given[37:], state)
    np.testing.assert_allclose(np.concatenate((first, second)), whole, atol=1e-6)
    np.testing.assert_allclose(end, last, atol=1e-6)


def compare(waves, monkeypatch):
    """Compare probabilities and spans of both ways."""
    pytest.importorskip("onnxruntime")
    assert speech._detector().native
    native = [(speech.speech_probabilities(wave), speech.net_speech(wave)) for wave in waves]
    by_numpy = Detector(native=False)
    monkeypatch.setattr(speech, "_detector", lambda: by_numpy)
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
    def missing():
        raise MissingExtra("onnxruntime", "runtime", "this")

    monkeypatch.setattr(core_onnx, "onnx_runtime", missing)
    silero._session.cache_clear()
    try:
        assert not Detector().native
    finally:
        silero._session.cache_clear()
