"""SphereFace2 (Wen et al. 2022; Han et al. 2023 for speakers): one binary classification for each
class.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sasv.core.options import PositiveFloat, Range
from sasv.losses.base import Loss, LossOutput, ScaledMarginOptions, accuracy, flatten, precise


@dataclass(frozen=True, kw_only=True)
class SphereFace2Options(ScaledMarginOptions):
    """Options of SphereFace2.

    Attributes:
        balance: weight of the correct class (lambda); each other class has the weight 1 - balance.
        exponent: exponent t of the adjustment of cosines, which spreads the scores of other
            classes.
    """

    balance: Annotated[float, Range(above=0, below=1)] = 0.7
    exponent: PositiveFloat = 3.0


class SphereFace2(Loss):
    """SphereFace2 with the additive margin of type C.

    With g(z) = 2 ((z + 1) / 2)^t - 1, scale r, margin m, weight lambda and learnt bias b, each
    utterance costs

        lambda / r * log(1 + exp(-r (g(cos_y) - m) - b))
        + (1 - lambda) / r * sum over the other classes c of log(1 + exp(r (g(cos_c) + m) + b))

    Source: Wen, Liu, Weller, Raj, Singh, "SphereFace2: Binary classification is all you need for
    deep face recognition", ICLR 2022; Han, Chen, Qian, "Exploring binary classification loss for
    speaker verification", ICASSP 2023 (t = 3, lambda = 0.7, m = 0.2).
    """

    Options = SphereFace2Options

    def __init__(self, dimension: int, classes: int, options: Any = None) -> None:
        super().__init__(dimension, classes, options)
        self.margin = self.options.margin
        self.scale = self.options.scale
        self.weight = nn.Parameter(nn.init.xavier_normal_(torch.empty(classes, dimension)))
        self.bias = nn.Parameter(torch.tensor(self._first_bias()))

    def _first_bias(self) -> float:
        """Return the bias that minimises the loss if all cosines are 0, as they nearly are at the
        start.
        """
        if self.classes < 2:
            return 0.0
        ratio = self.options.balance / ((1 - self.options.balance) * (self.classes - 1))
        own = self.scale * (float(self._adjusted(torch.zeros(()))) - self.margin)
        other = self.scale * (float(self._adjusted(torch.zeros(()))) + self.margin)
        root = math.sqrt((1 - ratio) ** 2 + 4 * ratio * math.exp(own - other))
        # 1 - ratio + root, without cancellation if the ratio is large
        total = (
            1 - ratio + root
            if ratio < 1
            else 4 * ratio * math.exp(own - other) / (ratio - 1 + root)
        )
        return math.log(2 * ratio) - other - math.log(total)

    @classmethod
    def class_directions(cls, entries: Mapping[str, Tensor]) -> Tensor | None:
        """Return the rows of the weight."""
        return entries.get("weight")

    def _adjusted(self, cosine: Tensor) -> Tensor:
        # A rounding error may put a cosine below -1, where a fractional power is not a number.
        half = ((cosine + 1.0) / 2.0).clamp(min=0.0)
        return 2.0 * half.pow(self.options.exponent) - 1.0

    def forward(self, embeddings: Tensor, labels: Tensor) -> LossOutput:
        x, labels = flatten(embeddings, labels)
        cosine = F.linear(F.normalize(precise(x)), F.normalize(precise(self.weight)))
        adjusted = self._adjusted(cosine)
        own = F.softplus(-self.scale * (adjusted - self.margin) - self.bias)
        other = F.softplus(self.scale * (adjusted + self.margin) + self.bias)
        is_own = F.one_hot(labels, self.classes).bool()
        balance = self.options.balance
        costs = torch.where(is_own, balance * own, (1 - balance) * other) / self.scale
        return LossOutput(costs.sum(dim=1).mean(), accuracy(cosine, labels))
