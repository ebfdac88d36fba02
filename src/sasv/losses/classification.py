"""Losses that classify speakers: softmax, AM-softmax (Wang et al. 2018), AAM-softmax (Deng et al. 2019)."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sasv.losses.base import Loss, LossOutput, ScaledMarginOptions, accuracy, flatten


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
    """Additive margin: the cosine of the own class is lowered by ``margin``."""

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
    """Additive angular margin: the angle to the own class is raised by ``margin``."""

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
        cosine = F.linear(F.normalize(x.float()), F.normalize(self.weight.float()))
        own = cosine.gather(1, labels[:, None])[:, 0]
        # The square root has no finite slope at |cos| = 1: the floor keeps the gradient finite there.
        sine = (1.0 - own.square()).clamp(min=1e-12).sqrt()
        shifted = own * math.cos(self.margin) - sine * math.sin(self.margin)
        # Past pi - margin the shifted cosine would rise again; go on along a line.
        shifted = torch.where(
            own > math.cos(math.pi - self.margin), shifted, own - math.sin(math.pi - self.margin) * self.margin
        )
        logits = self.scale * cosine.scatter(1, labels[:, None], shifted[:, None])
        return LossOutput(F.cross_entropy(logits, labels), accuracy(logits, labels))
