"""Corrects the biases of convolutions whose weights will be rounded to eight bits.

Rounding errors of the weights change the mean of every output channel, because the inputs, which
come from rectifiers, have a mean. Unlike other errors, this change is the same in every frame, so
that pooling over time does not average it out. With the mean of the inputs, it is subtracted from
the bias.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from sasv.core.onnx import new_session
from sasv.runtime.model import run_session

HALF = 127.5
"""Half the number of steps between 256 values."""


def rounded(weights: np.ndarray) -> np.ndarray:
    """Return weights, (outputs, ...), as the quantiser of ONNX Runtime rounds them: -128 to 127
    steps of a size that follows from the largest weight of each output channel.
    """
    rows = weights.reshape(len(weights), -1)
    largest = np.abs(rows).max(axis=1, keepdims=True).astype(np.float64)
    # The quantiser divides in single precision.
    step = np.where(largest > 0, largest / HALF, 1.0).astype(np.float32)
    steps = np.clip(np.round(rows / step), -128, 127)
    values: np.ndarray = (steps * step).reshape(weights.shape)
    return values


def convolutions(proto: Any, names: Collection[str]) -> list[Any]:
    """Return the convolutions of features among the layers with these names, without grouped
    ones.
    """
    made = {output for node in proto.graph.node for output in node.output}
    return [
        node
        for node in proto.graph.node
        if node.op_type == "Conv"
        and node.name in names
        and node.input[0] in made
        and all(one.i == 1 for one in node.attribute if one.name == "group")
    ]


def input_means(
    proto: Any, names: Collection[str], waves: Sequence[np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the mean input of convolutions: name of the input -> (channels,).

    Args:
        proto: the model.
        names: of the layers.
        waves: recordings of which the inputs are the features.
    """
    from onnx import helper

    inputs = sorted({node.input[0] for node in convolutions(proto, names)})
    if not inputs:
        return {}
    copied = type(proto)()
    copied.CopyFrom(proto)
    known = {one.name for one in copied.graph.output}
    copied.graph.output.extend(
        helper.make_empty_tensor_value_info(name) for name in inputs if name not in known
    )
    session = new_session(copied.SerializeToString(), 1)
    sums = {name: np.zeros(1) for name in inputs}
    for wave in waves:
        for name, values in zip(inputs, run_session(session, [wave], inputs)):
            axes = (0, *range(2, values.ndim))
            sums[name] = sums[name] + values.mean(axis=axes, dtype=np.float64)
    return {name: total / len(waves) for name, total in sums.items()}


def corrected(proto: Any, names: Collection[str], means: Mapping[str, np.ndarray]) -> Any:
    """Return a copy of a model in which the biases of convolutions are such that rounding their
    weights gives the original means of their outputs.

    Args:
        proto: the model.
        names: of the layers; those that are no convolutions stay as they are.
        means: mean inputs (see ``input_means``).
    """
    from onnx import numpy_helper

    copied = type(proto)()
    copied.CopyFrom(proto)
    constants = {one.name: one for one in proto.graph.initializer}
    replaced = set()
    for node in convolutions(copied, names):
        weights = numpy_helper.to_array(constants[node.input[1]])
        change = (rounded(weights) - weights).reshape(*weights.shape[:2], -1).sum(axis=2)
        bias = np.zeros(len(weights))
        if len(node.input) > 2:
            bias = numpy_helper.to_array(constants[node.input[2]])
            replaced.add(node.input[2])
        bias = (bias - change @ means[node.input[0]]).astype(np.float32)
        name = f"{node.output[0]}.corrected_bias"
        copied.graph.initializer.append(numpy_helper.from_array(bias, name))
        node.input[:] = [*node.input[:2], name]
    replaced -= {name for node in copied.graph.node for name in node.input}
    kept = [one for one in copied.graph.initializer if one.name not in replaced]
    del copied.graph.initializer[:]
    copied.graph.initializer.extend(kept)
    return copied
