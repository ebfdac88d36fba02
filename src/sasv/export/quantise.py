"""Quantises the weights and activations of a network to eight bits with ONNX Runtime.

The ranges of the features are measured on real recordings. The front-end stays in single precision,
because the range of its power spectrum exceeds eight bits.
"""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sasv.core.errors import MissingExtra
from sasv.runtime.record import LENGTHS, SAMPLES

LAYERS = ("Conv", "Gemm", "MatMul")
"""Operators that are quantised if their weights are constants."""


def quantised(proto: Any, frontend: str, waves: Sequence[np.ndarray]) -> Any:
    """Return the quantised form of an ONNX model.

    Args:
        proto: the model (``onnx.ModelProto``).
        frontend: prefix of the names of the front-end's constants.
        waves: recordings on whose features the ranges are measured.

    Raises:
        MissingExtra: onnx or onnxruntime is not installed.
    """
    try:
        import onnx
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    except ImportError as error:
        raise MissingExtra(error.name or "onnxruntime", "export", "int8") from error
    root = logging.getLogger()
    level = root.level
    handlers = root.handlers[:]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source.onnx"
        result = Path(folder) / "result.onnx"
        onnx.save(proto, source)
        # The quantiser recommends steps that the exporter has already done.
        root.setLevel(logging.ERROR)
        try:
            quantize_static(
                source,
                result,
                _Recordings(waves),
                quant_format=QuantFormat.QDQ,
                nodes_to_quantize=layers(proto, frontend),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        finally:
            root.setLevel(level)
            # The quantiser adds a handler, which would repeat every message.
            root.handlers[:] = handlers
        return onnx.load(result)


def layers(proto: Any, frontend: str) -> list[str]:
    """Return the names of the layers that are quantised."""
    constants = {one.name for one in proto.graph.initializer if not one.name.startswith(frontend)}
    return [
        node.name
        for node in proto.graph.node
        if node.op_type in LAYERS and set(node.input[1:]) <= constants
    ]


class _Recordings:
    """Feeds the recordings to the quantiser, one at a time."""

    def __init__(self, waves: Sequence[np.ndarray]) -> None:
        self.remaining: Iterator[np.ndarray] = iter(waves)

    def get_next(self) -> dict[str, np.ndarray] | None:
        wave = next(self.remaining, None)
        if wave is None:
            return None
        return {SAMPLES: wave[None], LENGTHS: np.array([len(wave)], np.int64)}
