"""The base class of losses."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

UTTERANCES = 2
"""Number of utterances per item."""


class LossOutput(NamedTuple):
    """The loss to minimise, and the classification accuracy in percent.

    ``anchor_cosine`` is the mean cosine of bona fide embeddings with those of the anchor; None for
    a loss without an anchor.
    """

    value: Tensor
    accuracy: Tensor
    anchor_cosine: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """A loss without options."""


@dataclass(frozen=True, kw_only=True)
class MarginOptions:
    """A margin between classes.

    Attributes:
        margin: AAM-softmax: an angle in radians; AM-softmax: in cosine; triplet loss: in squared
            distance.
    """

    margin: float = 0.2


@dataclass(frozen=True, kw_only=True)
class ScaledMarginOptions(MarginOptions):
    """A margin, and a scale of the cosines before the softmax.

    Attributes:
        scale: factor of the cosines.
    """

    scale: float = 30.0


class Loss(nn.Module):
    """A loss head. Its state-dict keys are the published ones.

    A loss may have an additional spoof head, ``spoof_head`` (see sasv.losses.spoof_head), whose
    loss is added by ``total``.

    Args:
        dimension: dimension of the embeddings.
        classes: number of training classes; if there is spoofed speech, its class is the last.
        options: an instance of ``Options`` of the loss; None uses its defaults.
    """

    Options: ClassVar[type[Any]] = NoOptions
    """Dataclass of the options of the loss."""

    spoof_aware: ClassVar[bool] = False
    """Whether the last class of the loss is that of spoofed speech."""

    anchored: ClassVar[bool] = False
    """Whether the loss compares embeddings with those of a frozen copy of the encoder. It then gets
    three more vectors per item: the embeddings of the two utterances by the copy, and the
    voiceprint of the speaker.
    """

    spoof_head: nn.Module | None
    """Scores embeddings as bona fide or spoofed; None if there is none."""

    def __init__(self, dimension: int, classes: int, options: Any = None) -> None:
        super().__init__()
        self.dimension = dimension
        self.classes = classes
        self.options = self.Options() if options is None else options
        self.spoof_head = None
        self.spoof_head_weight = 0.0

    def forward(self, embeddings: Tensor, labels: Tensor) -> LossOutput:
        """Compute the loss.

        Args:
            embeddings: (items, 2, dimension): two utterances of each item.
            labels: (items,) class of each item.
        """
        raise NotImplementedError

    def total(self, embeddings: Tensor, labels: Tensor) -> LossOutput:
        """Compute the loss plus that of an attached spoof head; see ``forward``."""
        found = self(embeddings, labels)
        if self.spoof_head is None or not self.spoof_head_weight:
            return found
        of_spoofs = self.spoof_head(embeddings[:, :UTTERANCES], labels == self.classes - 1)
        return found._replace(value=found.value + self.spoof_head_weight * of_spoofs)

    @classmethod
    def class_directions(cls, entries: Mapping[str, Tensor]) -> Tensor | None:
        """Return the weight of each class in the space of embeddings, (classes, dimension), not
        normalised.

        Args:
            entries: state dict of such a head.

        Returns:
            None if the loss has no weights for classes, or if the entries do not contain them.
        """
        return None

    @classmethod
    def countermeasure(cls, entries: Mapping[str, Tensor]) -> tuple[Tensor, float] | None:
        """Return (weight, bias) of the spoof head: ``weight @ x / |x| + bias`` is high for bona
        fide speech.

        Args:
            entries: state dict of such a head.

        Returns:
            The weight has the shape (dimension,). None if there is no spoof head.
        """
        weight = entries.get("spoof_head.weight")
        bias = entries.get("spoof_head.bias")
        if weight is None or weight.dim() != 1:
            return None
        if bias is None:  # a head that compares directions (OC-softmax)
            return F.normalize(weight.float(), dim=0), 0.0
        return weight.float(), float(bias)


def inside(entries: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """Return the entries of the submodule ``part``, without its prefix."""
    return {
        key.removeprefix(part + "."): value
        for key, value in entries.items()
        if key.startswith(part + ".")
    }


def precise(values: Tensor) -> Tensor:
    """Convert values to float32, except those in float64."""
    return values if values.dtype == torch.float64 else values.float()


def mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    """Return the mean of the chosen values; zero, with a gradient of zero, if none is chosen.

    Args:
        values: any shape.
        chosen: boolean, of the same shape.
    """
    return torch.where(chosen, values, 0.0).sum() / chosen.sum().clamp(min=1)


def flatten(embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the embeddings of all utterances, (items * 2, dimension), and their labels."""
    return embeddings.reshape(-1, embeddings.shape[2]), labels.repeat_interleave(
        embeddings.shape[1]
    )


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the share of the rows whose largest logit is that of the label, in percent."""
    return 100.0 * (logits.detach().argmax(dim=1) == labels).float().mean()


def own_column(rows: int, device: torch.device) -> Tensor:
    """Return the labels 0, 1, 2, ..., (rows,), with which row i belongs to column i."""
    return torch.arange(rows, device=device)
