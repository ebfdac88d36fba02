"""Losses that classify speakers: softmax, AM-softmax (Wang et al. 2018), AAM-softmax (Deng et al.
2019).
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sasv.losses.base import Loss, LossOutput, ScaledMarginOptions, accuracy, flatten, precise


class Softmax(Loss):
    """Linear layer and cross-entropy."""

    def __init__(self, dimension: int, classes: int, options: Any = None) -> None:
        super().__init__(dimension, classes, options)
        self.fc = nn.Linear(dimension, classes)

    @classmethod
    def class_directions(cls, entries: Mapping[str, Tensor]) -> Tensor | None:
        """Return the rows of the linear layer."""
        return entries.get("fc.weight")

    def forward(self, embeddings: Tensor, labels: Tensor) -> LossOutput:
        x, labels = flatten(embeddings, labels)
        logits = self.fc(x).float()
        return LossOutput(F.cross_entropy(logits, labels), accuracy(logits, labels))


class AmSoftmax(Loss):
    """AM-softmax: the cosine with the correct class is decreased by ``margin``."""

    Options = ScaledMarginOptions

    def __init__(self, dimension: int, classes: int, options: Any = None) -> None:
        super().__init__(dimension, classes, options)
        self.margin = self.options.margin
        self.scale = self.options.scale
        self.W = nn.Parameter(nn.init.xavier_normal_(torch.empty(dimension, classes)))

    @classmethod
    def class_directions(cls, entries: Mapping[str, Tensor]) -> Tensor | None:
        """Return the columns of W, which is stored as (dimension, classes)."""
        weight = entries.get("W")
        return None if weight is None or weight.dim() != 2 else weight.T

    def forward(self, embeddings: Tensor, labels: Tensor) -> LossOutput:
        x, labels = flatten(embeddings, labels)
        cosine = F.normalize(x.float(), dim=1) @ F.normalize(self.W.float(), dim=0)
        logits = self.scale * (cosine - self.margin * F.one_hot(labels, self.classes))
        return LossOutput(F.cross_entropy(logits, labels), accuracy(logits, labels))


class AamSoftmax(Loss):
    """AAM-softmax: the angle to the correct class is increased by ``margin`` radians."""

    Options = ScaledMarginOptions

    def __init__(self, dimension: int, classes: int, options: Any = None) -> None:
        super().__init__(dimension, classes, options)
        self.margin = self.options.margin
        self.scale = self.options.scale
        self.weight = nn.Parameter(nn.init.xavier_normal_(torch.empty(classes, dimension)))

    @classmethod
    def class_directions(cls, entries: Mapping[str, Tensor]) -> Tensor | None:
        """Return the rows of the weight."""
        return entries.get("weight")

    def forward(self, embeddings: Tensor, labels: Tensor) -> LossOutput:
        x, labels = flatten(embeddings, labels)
        cosine = F.linear(F.normalize(precise(x)), F.normalize(precise(self.weight)))
        own = cosine.gather(1, labels[:, None])
        shifted = angle_raised(own, self.margin)
        logits = self.scale * cosine.scatter(1, labels[:, None], shifted)
        return LossOutput(F.cross_entropy(logits, labels), accuracy(logits, labels))


def angle_raised(cosine: Tensor, margin: float) -> Tensor:
    """Return the cosine of an angle increased by a margin in radians. Beyond pi it continues along
    a line, so that it always decreases.
    """
    # The square root has an infinite slope at |cos| = 1; the lower limit keeps the gradient finite.
    sine = (1.0 - cosine.square()).clamp(min=1e-12).sqrt()
    shifted = cosine * math.cos(margin) - sine * math.sin(margin)
    # Beyond pi - margin, the shifted cosine would increase again.
    beyond = cosine - math.sin(math.pi - margin) * margin
    return torch.where(cosine > math.cos(math.pi - margin), shifted, beyond)
