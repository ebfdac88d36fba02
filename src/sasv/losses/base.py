"""What every loss is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn


class LossOutput(NamedTuple):
    """Value to minimise, and classification accuracy in percent."""

    value: Tensor
    accuracy: Tensor


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """A loss without options."""


@dataclass(frozen=True, kw_only=True)
class MarginOptions:
    """A margin between classes.

    Attributes:
        margin: AAM-softmax: an angle in radians; AM-softmax: in cosine; triplet loss: in squared distance.
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
    """A loss head. Entries of its state dict carry the published names.

    Args:
        dimension: dimension of the embeddings.
        classes: number of training classes; where there is spoofed speech its class is the last.
        options: an object of the class ``Options`` of the loss; None takes its defaults.
    """

    Options: ClassVar[type[Any]] = NoOptions
    """Dataclass of the options of the loss."""

    def __init__(self, dimension: int, classes: int, options: Any = None) -> None:
        super().__init__()
        self.dimension = dimension
        self.classes = classes
        self.options = self.Options() if options is None else options

    def forward(self, embeddings: Tensor, labels: Tensor) -> LossOutput:
        """Compute the loss.

        Args:
            embeddings: (items, 2, dimension): two utterances of each item.
            labels: (items,) class of each item.
        """
        raise NotImplementedError

    @classmethod
    def class_directions(cls, entries: Mapping[str, Tensor]) -> Tensor | None:
        """Return the weight of each class in the space of embeddings, (classes, dimension), not normalised.

        Args:
            entries: state dict of such a head.

        Returns:
            None where the loss has no weights of classes, or the entries do not hold them.
        """
        return None


def inside(entries: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """Return the entries of the part called so, without its prefix."""
    return {key.removeprefix(part + "."): value for key, value in entries.items() if key.startswith(part + ".")}


def flatten(embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return (items * 2, dimension) and the label of each."""
    return embeddings.reshape(-1, embeddings.shape[2]), labels.repeat_interleave(embeddings.shape[1])


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of rows whose largest logit is the label's, in percent."""
    return 100.0 * (logits.detach().argmax(dim=1) == labels).float().mean()


def own_column(rows: int, device: torch.device) -> Tensor:
    """Return 0, 1, 2, ...: row i belongs to column i."""
    return torch.arange(rows, device=device)
