"""Quantises the weights and activations of a network to eight bits with ONNX Runtime.

The ranges of the features are measured on real recordings. The front-end stays as it is, because
the range of its power spectrum exceeds eight bits. Layers that do not bear eight bits compute in
single precision, and the file stores their weights in half precision.
"""

import logging
import math
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sasv.core.errors import MissingExtra, SasvError
from sasv.core.onnx import new_session, onnx_runtime
from sasv.export.rounding import corrected, input_means
from sasv.runtime.model import run_session
from sasv.runtime.record import EMBEDDING, LENGTHS, SAMPLES

logger = logging.getLogger("sasv")

LAYERS = ("Conv", "Gemm", "MatMul")
"""Operators that are quantised if their weights are constants."""

FEWEST_WEIGHTS = 4096
"""Of a layer that is quantised: a smaller one would make the file smaller by 12 kB at most."""

LARGEST_SHIFTS = (0.02, 0.01, 0.005, 0.0025)
"""Mean distances of the quantised embeddings from the original ones, relative to their length:
layers compute in single precision until the rest moves the embeddings by no more than the first of
these, or than a later one if the error rates still change too much.
"""

LARGEST_HALF = 65504.0
MOST_GROUPS = 24
PROBES = 8
PROBE_SAMPLES = 64_000
"""The distance is measured on the beginnings of some recordings."""

MEANS = 16
"""Other recordings, on whose beginnings the mean inputs of layers are measured."""


def quantised(proto: Any, frontend: str, waves: Sequence[np.ndarray]) -> Iterator[Any]:
    """Yield quantised forms of an ONNX model, each with fewer layers in eight bits, and closer to
    the original, than the one before.

    Args:
        proto: the model (``onnx.ModelProto``).
        frontend: prefix of the names of the front-end's constants.
        waves: recordings on whose features the ranges are measured.

    Raises:
        MissingExtra: onnx or onnxruntime is not installed.
        SasvError: the network has no layer that is worth it.
    """
    nodes = layers(proto, frontend)
    if not nodes:
        raise SasvError(
            f"no layer of this network has {FEWEST_WEIGHTS} weights, so that eight bits would save "
            "nothing; export it without --int8"
        )
    probes = [wave[:PROBE_SAMPLES] for wave in waves]
    means = input_means(proto, nodes, probes[PROBES:][:MEANS] or probes)
    whole = _quantised(corrected(proto, nodes, means), nodes, waves)
    distance = _distance_from(proto, probes[:PROBES])
    groups = by_sensitivity(whole, proto, nodes, distance)
    rest = nodes
    shift = distance(whole)
    yielded = 0
    for largest in LARGEST_SHIFTS:
        # The shifts of groups are taken to add up as independent errors do, until measured.
        while groups and shift > largest:
            while groups:
                exact = groups.pop(0).layers
                rest = [name for name in rest if name not in exact]
                if np.linalg.norm([group.shift for group in groups]) <= largest:
                    break
            shift = distance(restored(whole, proto, set(nodes) - set(rest)))
        if rest and len(rest) != yielded:
            yielded = len(rest)
            logger.info(
                f"{len(rest)} of {len(nodes)} layers compute in eight bits, which moves the "
                f"embeddings by {shift:.4f} of their length"
            )
            yield halved(_quantised(corrected(proto, rest, means), rest, waves), frontend)


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
                weight_type=QuantType.QUInt8,  # QInt8 would overflow on processors without VNNI
                extra_options={"WeightSymmetric": True},  # as sasv.export.rounding expects
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
    those of the network whose weights are constants, except for small ones. Double precision
    belongs to the front-end, whatever an exporter calls its constants.
    """
    from onnx import TensorProto

    weights = {
        one.name: math.prod(one.dims)
        for one in proto.graph.initializer
        if one.data_type == TensorProto.FLOAT and not one.name.startswith(frontend)
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


class Group(NamedTuple):
    """Neighbouring layers, and how far they move the embeddings if they alone compute in eight
    bits.
    """

    shift: float
    layers: list[str]


def by_sensitivity(
    quantised: Any, original: Any, names: Sequence[str], distance: Callable[[Any], float]
) -> list[Group]:
    """Return the layers in groups, those that move the embeddings most first.

    Args:
        quantised: the model with all these layers quantised.
        original: the model before.
        names: of the layers.
        distance: gives the mean distance of the embeddings of a model from those of the original.
    """
    size = -(-len(names) // MOST_GROUPS)
    groups = []
    for start in range(0, len(names), size):
        group = list(names[start : start + size])
        shift = distance(restored(quantised, original, set(names) - set(group)))
        groups.append(Group(shift, group))
    return sorted(groups, key=lambda group: group.shift, reverse=True)


def halved(proto: Any, frontend: str) -> Any:
    """Store the weights of a network that are in single precision in half precision, in place, and
    return it. ONNX Runtime converts them when it loads the model.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = proto.graph
    casts = []
    for one in graph.initializer:
        large = one.data_type == TensorProto.FLOAT and math.prod(one.dims) >= FEWEST_WEIGHTS
        if not large or one.name.startswith(frontend):
            continue
        values = numpy_helper.to_array(one)
        if np.abs(values).max() > LARGEST_HALF:
            continue
        name = one.name
        one.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
        casts.append(helper.make_node("Cast", [one.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return proto


class _Recordings:
    """Feeds the recordings to the quantiser, one at a time."""

    def __init__(self, waves: Sequence[np.ndarray]) -> None:
        self.remaining: Iterator[np.ndarray] = iter(waves)

    def get_next(self) -> dict[str, np.ndarray] | None:
        wave = next(self.remaining, None)
        if wave is None:
            return None
        return {SAMPLES: wave[None], LENGTHS: np.array([len(wave)], np.int64)}
