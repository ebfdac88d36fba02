"""Quantises the weights and activations of a network to eight bits with ONNX Runtime.

The ranges of the features are measured on real recordings. The front-end stays in single precision,
because the range of its power spectrum exceeds eight bits.
"""

import logging
import math
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sasv.core.errors import MissingExtra, SasvError
from sasv.runtime.model import new_session, onnx_runtime, run_session
from sasv.runtime.record import EMBEDDING, LENGTHS, SAMPLES

logger = logging.getLogger("sasv")

LAYERS = ("Conv", "Gemm", "MatMul")
"""Operators that are quantised if their weights are constants."""

FEWEST_WEIGHTS = 4096
"""Of a layer that is quantised: a smaller one would make the file smaller by 12 kB at most."""

LARGEST_SHIFT = 0.02
"""Mean distance of the quantised embeddings from the original ones, relative to their length, above
which the layers that cause most of it compute in single precision.
"""

MOST_GROUPS = 24
PROBES = 8
"""Recordings by which the distance is measured."""


def quantised(proto: Any, frontend: str, waves: Sequence[np.ndarray]) -> Any:
    """Return the quantised form of an ONNX model.

    Layers of which eight bits would move the embeddings most stay in single precision.

    Args:
        proto: the model (``onnx.ModelProto``).
        frontend: prefix of the names of the front-end's constants.
        waves: recordings on whose features the ranges are measured.

    Raises:
        MissingExtra: onnx or onnxruntime is not installed.
        SasvError: the network has no layer that is worth it, or none that bears it.
    """
    nodes = layers(proto, frontend)
    if not nodes:
        raise SasvError(
            f"no layer of this network has {FEWEST_WEIGHTS} weights, so that eight bits would save "
            "nothing; export it without --int8"
        )
    whole = _quantised(proto, nodes, waves)
    exact = sensitive_layers(whole, proto, nodes, _distance_from(proto, waves[:PROBES]))
    if not exact:
        return whole
    rest = [name for name in nodes if name not in exact]
    logger.info(f"{len(exact)} of {len(nodes)} layers stay in single precision")
    if not rest:
        raise SasvError("eight bits move the embeddings too far; export it without --int8")
    return _quantised(proto, rest, waves)


def _quantised(proto: Any, names: Sequence[str], waves: Sequence[np.ndarray]) -> Any:
    """Return a model with these layers quantised; of no names, ONNX Runtime would take all."""
    onnx_runtime()
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
                nodes_to_quantize=list(names),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        finally:
            root.setLevel(level)
            # The quantiser adds a handler, which would repeat every message.
            root.handlers[:] = handlers
        return onnx.load(result)


def _distance_from(proto: Any, waves: Sequence[np.ndarray]) -> Callable[[Any], float]:
    """Return a function that gives the mean distance of the embeddings of a model from those of the
    given one, relative to their length.
    """

    def embedded(one: Any) -> np.ndarray:
        session = new_session(one.SerializeToString(), 1)
        return np.concatenate([run_session(session, [wave], [EMBEDDING])[0] for wave in waves])

    expected = embedded(proto)
    lengths = np.linalg.norm(expected, axis=1)
    return lambda one: float(np.mean(np.linalg.norm(embedded(one) - expected, axis=1) / lengths))


def layers(proto: Any, frontend: str) -> list[str]:
    """Return the names of the layers that are quantised, in the order in which they are computed:
    those of the network whose weights are constants, except for small ones.
    """
    weights = {
        one.name: math.prod(one.dims)
        for one in proto.graph.initializer
        if not one.name.startswith(frontend)
    }
    return [
        node.name
        for node in proto.graph.node
        if node.op_type in LAYERS
        and set(node.input[1:]) <= weights.keys()
        and max(weights[name] for name in node.input[1:]) >= FEWEST_WEIGHTS
    ]


def restored(quantised: Any, original: Any, names: Collection[str]) -> Any:
    """Return a copy of a quantised model in which some layers are those of the original."""
    copied = type(quantised)()
    copied.CopyFrom(quantised)
    nodes = copied.graph.node
    made_by = {output: node for node in nodes for output in node.output}
    exact = {}  # rounded value -> the value
    for node in nodes:
        source = made_by.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if source is not None and source.op_type == "QuantizeLinear":
            exact[node.output[0]] = source.input[0]
    kept = set()  # what the layers of eight bits read and give stays rounded
    for node in nodes:
        if node.name not in names and _is_layer(node, made_by):
            kept |= {exact.get(value) for value in node.input} | set(node.output)
    free = {rounded: value for rounded, value in exact.items() if value not in kept}
    inputs = {node.name: node.input for node in original.graph.node if node.name in names}
    outputs = {one.name for one in copied.graph.output}
    for node in nodes:
        if node.name in names:
            node.input[:] = inputs[node.name]
        elif node.output[0] in outputs & free.keys():
            node.op_type = "Identity"
            node.input[:] = [free[node.output[0]]]
        elif not _is_layer(node, made_by):
            node.input[:] = [free.get(value, value) for value in node.input]
    # A bias of 32 bits, which has the name of the original, is as good as that.
    known = {one.name for one in copied.graph.initializer} | made_by.keys()
    copied.graph.initializer.extend(
        one for one in original.graph.initializer if one.name not in known
    )
    return copied


def _is_layer(node: Any, made_by: Mapping[str, Any]) -> bool:
    """Whether the weights of a node are quantised."""
    weights = made_by.get(node.input[1]) if node.op_type in LAYERS else None
    return weights is not None and weights.op_type == "DequantizeLinear"


def sensitive_layers(
    quantised: Any, original: Any, names: Sequence[str], distance: Callable[[Any], float]
) -> list[str]:
    """Return the layers that have to compute in single precision, so that the embeddings move by no
    more than ``LARGEST_SHIFT``.

    Neighbouring layers are tried together: each group alone in eight bits. The shifts of several
    groups are taken to add up as independent errors do.

    Args:
        quantised: the model with all these layers quantised.
        original: the model before.
        names: of the layers.
        distance: gives the mean distance of the embeddings of a model from those of the original.
    """
    size = -(-len(names) // MOST_GROUPS)
    groups = [list(names[start : start + size]) for start in range(0, len(names), size)]
    shifts = [distance(restored(quantised, original, set(names) - set(group))) for group in groups]
    found: list[str] = []
    order = np.argsort(shifts)[::-1]
    for place, group in enumerate(order):
        if np.linalg.norm([shifts[one] for one in order[place:]]) <= LARGEST_SHIFT:
            break
        found += groups[group]
    return found


class _Recordings:
    """Feeds the recordings to the quantiser, one at a time."""

    def __init__(self, waves: Sequence[np.ndarray]) -> None:
        self.remaining: Iterator[np.ndarray] = iter(waves)

    def get_next(self) -> dict[str, np.ndarray] | None:
        wave = next(self.remaining, None)
        if wave is None:
            return None
        return {SAMPLES: wave[None], LENGTHS: np.array([len(wave)], np.int64)}
