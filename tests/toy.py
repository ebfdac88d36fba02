"""An exported model of one layer, which distinguishes the buzzing "voices" of conftest."""

from pathlib import Path

import numpy as np

from sasv.audio.speech import SpeechActivity
from sasv.calibration import ThreeWay
from sasv.calibration.backend import Linear
from sasv.calibration.narrow_band import NarrowBand
from sasv.decision import SpeechLimits
from sasv.metrics import COST_MODELS
from sasv.models import Specification
from sasv.runtime.record import KEY, Record

RATE = 16000
THRESHOLD = 0.98
ANYTHING = SpeechLimits(min_enrolment=0, min_test=0, min_bandwidth=0)


def all_speech(wave, rate=RATE):
    """The activity of a recording that is speech from its beginning to its end: buzzing is not
    detected as speech.
    """
    return SpeechActivity(len(wave) / rate, -20.0, ((0.0, len(wave) / rate),))


def telephone_calibration(spoof_axis=False):
    """Return a calibration whose LLR of the speaker is 3 for trials of which both sides are
    narrow-band, and 2 for those of which one is.
    """
    narrow = NarrowBand(5000.0, Linear(["score"], [1e-9], 2.0), Linear(["score"], [1e-9], 3.0))
    return ThreeWay(
        speaker=Linear(["score"], [1.0], -5.0),
        spoof=Linear(["cm_score"], [1.0], 2.0),
        share=1.0,
        bound=5.0,
        ranges={},
        costs=COST_MODELS["asvspoof5"],
        spoof_axis=spoof_axis,
        narrow=narrow,
    )


def toy_model(path: Path, **decision) -> Path:
    """Write a model whose embedding is the magnitude of 24 bands, with a threshold in its record;
    return its path.

    Args:
        path: the ONNX file.
        decision: further entries of the record of the decision.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    time = np.arange(400) / RATE
    bands = np.stack([np.sin(2 * np.pi * 60 * (band + 1) * time) for band in range(24)])
    weight = numpy_helper.from_array(bands[:, None].astype(np.float32), "weight")
    axes = numpy_helper.from_array(np.array([1]), "axes")
    last = numpy_helper.from_array(np.array([2]), "last")
    nodes = [
        helper.make_node("Unsqueeze", ["samples", "axes"], ["waves"]),
        helper.make_node("Conv", ["waves", "weight"], ["bands"], strides=[160], pads=[400, 400]),
        helper.make_node("Abs", ["bands"], ["magnitude"]),
        helper.make_node("ReduceSum", ["magnitude", "last"], ["sum"], keepdims=0),
        helper.make_node("Unsqueeze", ["lengths", "axes"], ["counts"]),
        helper.make_node("Cast", ["counts"], ["divisor"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["sum", "divisor"], ["embedding"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "toy",
        [
            value("samples", TensorProto.FLOAT, ["batch", "samples"]),
            value("lengths", TensorProto.INT64, ["batch"]),
        ],
        [value("embedding", TensorProto.FLOAT, ["batch", 24])],
        [weight, axes, last],
    )
    known = {"threshold": THRESHOLD, "threshold_source": "toy", "speech": vars(ANYTHING)}
    record = Record(Specification("toy", {}, decision=known | decision), "f" * 64, 24, 18)
    opsets = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    helper.set_model_props(model, {KEY: record.to_json()})
    onnx.save(model, path)
    return path
