"""Sums of losses, as in the published Stage 1 and Stage 3 (paper, section 3)."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sasv.losses.base import Loss, LossOutput, ScaledMarginOptions, inside
from sasv.losses.classification import AamSoftmax, Softmax
from sasv.losses.metric import AngularPrototypical, OneDirectional


class SoftmaxPrototypical(Loss):
    """Softmax plus angular prototypical."""

    def __init__(self, dimension: int, classes: int, options: Any = None) -> None:
        super().__init__(dimension, classes, options)
        self.softmax = Softmax(dimension, classes)
        self.angleproto = AngularPrototypical(dimension, classes)

    @classmethod
    def class_directions(cls, entries: Mapping[str, Tensor]) -> Tensor | None:
        """Return those of the classification."""
        return Softmax.class_directions(inside(entries, "softmax"))

    def forward(self, embeddings: Tensor, labels: Tensor) -> LossOutput:
        classified = self.softmax(embeddings, labels)
        return LossOutput(
            classified.value + self.angleproto(embeddings, labels).value, classified.accuracy
        )


class AamPrototypical(Loss):
    """AAM-softmax plus angular prototypical; used in Stage 1."""

    Options = ScaledMarginOptions

    def __init__(self, dimension: int, classes: int, options: Any = None) -> None:
        super().__init__(dimension, classes, options)
        self.aamsoftmax = AamSoftmax(dimension, classes, self.options)
        self.angleproto = AngularPrototypical(dimension, classes)

    @classmethod
    def class_directions(cls, entries: Mapping[str, Tensor]) -> Tensor | None:
        """Return those of the classification."""
        return AamSoftmax.class_directions(inside(entries, "aamsoftmax"))

    def forward(self, embeddings: Tensor, labels: Tensor) -> LossOutput:
        classified = self.aamsoftmax(embeddings, labels)
        return LossOutput(
            classified.value + self.angleproto(embeddings, labels).value, classified.accuracy
        )


class Sasv(Loss):
    """AAM-softmax over the speakers and the spoof class (the last), plus the one-directional loss;
    used in Stages 2 and 3.
    """

    Options = ScaledMarginOptions
    spoof_aware = True

    def __init__(self, dimension: int, classes: int, options: Any = None) -> None:
        super().__init__(dimension, classes, options)
        self.aamsoftmax = AamSoftmax(dimension, classes, self.options)
        self.angleproto_sasv = OneDirectional()

    @classmethod
    def class_directions(cls, entries: Mapping[str, Tensor]) -> Tensor | None:
        """Return those of the classification."""
        return AamSoftmax.class_directions(inside(entries, "aamsoftmax"))

    def forward(self, embeddings: Tensor, labels: Tensor) -> LossOutput:
        classified = self.aamsoftmax(embeddings, labels)
        metric = self.metric(embeddings, labels == self.classes - 1)
        return LossOutput(classified.value + metric, classified.accuracy)

    def metric(self, embeddings: Tensor, spoofed: Tensor) -> Tensor:
        """Return the metric loss of embeddings (items, 2, dimension); ``spoofed`` is bool
        (items,).
        """
        return self.angleproto_sasv(embeddings, spoofed)


class SasvSymmetric(Sasv):
    """The SASV loss with the metric loss in both directions, utterances 0 against 1 and 1 against 0
    (not published).
    """

    def metric(self, embeddings: Tensor, spoofed: Tensor) -> Tensor:
        """Return the mean of both directions."""
        return (
            super().metric(embeddings, spoofed) + super().metric(embeddings.flip(1), spoofed)
        ) / 2
