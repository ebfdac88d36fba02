"""Builds the ONNX graph of a model: front-end, encoder, spoof head, and lengths as an input."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sasv.checkpoints import Checkpoint, spawn_encoder
from sasv.core.errors import MissingExtra, SasvError
from sasv.embeddings.model import Model
from sasv.encoders.base import Encoder
from sasv.runtime.record import CM_SCORE, EMBEDDING, LENGTHS, SAMPLES

OPSET = 18
"""Version of the ONNX operators: that of the exporter of PyTorch 2.5 and newer."""

LARGEST_BYTES = 2_000_000_000
"""Maximum size of an ONNX file: 2 GiB."""

NOISY = ("torch.onnx", "torch.onnx._internal.exporter", "onnxscript", "onnx_ir", "torch.export")
"""Loggers that report packages that are not needed and constants that were not folded."""


class SpoofScore(nn.Module):
    """A linear countermeasure on the normalised embedding."""

    weight: Tensor

    def __init__(self, weight: Tensor, bias: float) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.bias = bias

    def forward(self, embedding: Tensor) -> Tensor:
        return F.normalize(embedding, dim=1) @ self.weight + self.bias


class Graph(nn.Module):
    """Computes embeddings, and countermeasure scores if the model has them, from samples and
    lengths.
    """

    def __init__(self, encoder: Encoder, spoof_score: nn.Module | None) -> None:
        super().__init__()
        self.encoder = encoder
        self.spoof_score = spoof_score

    def forward(self, samples: Tensor, lengths: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        embedding = self.encoder(samples, lengths)
        if self.spoof_score is not None:
            return embedding, self.spoof_score(embedding)
        layer = getattr(self.encoder, "scores", None)
        return embedding if layer is None else (embedding, layer(embedding))


def graph_of(model: Model, checkpoint: Checkpoint) -> Graph:
    """Return the module to export: the encoder in the form in which it was trained, not in the
    layout that is fastest in PyTorch.
    """
    encoder = spawn_encoder(checkpoint).eval().requires_grad_(False)
    return Graph(encoder, None if hasattr(encoder, "scores") else _spoof_score(model))


def _spoof_score(model: Model) -> SpoofScore | None:
    head = model.spoof_head()
    if head is not None:
        return SpoofScore(torch.from_numpy(head.weight).float(), head.bias)
    try:
        direction = model.spoof_direction()
    except SasvError:
        return None
    return SpoofScore(torch.from_numpy(-direction).float(), 0.0)


def to_onnx(graph: Graph) -> Any:
    """Return the ONNX model (``onnx.ModelProto``) of a graph, with dynamic batch and time
    dimensions.

    Raises:
        MissingExtra: onnx or onnxscript is not installed.
        SasvError: the model is too large for one file.
    """
    least = graph.encoder.min_samples
    samples = torch.zeros(3, 12 * least + 7)
    lengths = torch.tensor([12 * least + 7, 5 * least, least])
    dynamic = torch.export.Dim.DYNAMIC
    inputs = {SAMPLES: samples, LENGTHS: lengths}
    return named(exported(graph, inputs, ({0: dynamic, 1: dynamic}, {0: dynamic})))


def exported(module: nn.Module, inputs: Mapping[str, Tensor], shapes: Any) -> Any:
    """Return the ONNX model of a module.

    Args:
        module: the module to export.
        inputs: name and example of each input.
        shapes: the dynamic dimensions of each input.

    Raises:
        MissingExtra: onnx or onnxscript is not installed.
        SasvError: the model is too large for one file.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtra(error.name or "onnx", "export", "sasv export") from error
    size = sum(value.numel() * value.element_size() for value in module.state_dict().values())
    if size > LARGEST_BYTES:
        raise SasvError(
            f"the weights take {size / 1e9:.1f} GB, but an ONNX file must be smaller than 2 GiB"
        )
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            module,
            tuple(inputs.values()),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            dynamic_shapes=shapes,
            input_names=list(inputs),
        )
        assert program is not None
        return program.model_proto


def named(proto: Any) -> Any:
    """Name the outputs and the dynamic dimensions of a model."""
    graph = proto.graph
    outputs = [output.name for output in graph.output]
    names = dict(zip(outputs, (EMBEDDING, CM_SCORE)))
    inner = {name: f"{name}_inside" for name in names.values() if name not in outputs}
    for node in graph.node:
        for values in (node.input, node.output):
            for place, used in enumerate(values):
                values[place] = names.get(used) or inner.get(used, used)
    for output in graph.output:
        output.name = names[output.name]
        output.type.tensor_type.shape.dim[0].dim_param = "batch"
    shapes = [one.type.tensor_type.shape.dim for one in graph.input]
    shapes[0][0].dim_param = "batch"
    shapes[0][1].dim_param = "samples"
    shapes[1][0].dim_param = "batch"
    del graph.value_info[:]  # under their previous names
    return proto


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporter, whose output and warnings are of no use to the user."""
    levels = {name: logging.getLogger(name).level for name in NOISY}
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
