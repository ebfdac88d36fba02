"""AAM-softmax with several centres per class and a penalty on the nearest other classes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sasv.core.options import Count, PositiveInt, Range
from sasv.losses.base import Loss, LossOutput, ScaledMarginOptions, accuracy, flatten, precise
from sasv.losses.classification import angle_raised


@dataclass(frozen=True, kw_only=True)
class SubcentreOptions(ScaledMarginOptions):
    """Options of sub-centre AAM-softmax.

    Attributes:
        subcentres: number of centres per class; an utterance belongs to the nearest one.
        top_k: number of nearest other classes that are penalised; 0 for no penalty.
        penalty: angle in radians by which these classes are moved closer.
    """

    subcentres: PositiveInt = 3
    top_k: Count = 5
    penalty: Annotated[float, Range(0, 3.14)] = 0.06


class SubcentreAamSoftmax(Loss):
    """Sub-centre AAM-softmax with the inter-top-k penalty.

    The cosine with a class is the maximum over its sub-centres, so that noisy or unusual utterances
    of a speaker can have a separate centre. The angle to the correct class is increased by
    ``margin``, and the angles to the ``top_k`` nearest other classes are decreased by ``penalty``.
    With one sub-centre and ``top_k`` 0, the loss is AAM-softmax.

    Source: Deng, Guo, Liu, Gong, Zafeiriou, "Sub-center ArcFace", ECCV 2020; Zhao, Ma, Liu, Xu,
    "Multi-query multi-head attention pooling and inter-topK penalty for speaker verification",
    ICASSP 2022.
    """

    Options = SubcentreOptions

    def __init__(self, dimension: int, classes: int, options: Any = None) -> None:
        super().__init__(dimension, classes, options)
        self.margin = self.options.margin
        self.scale = self.options.scale
        centres = self.options.subcentres
        weight = nn.init.xavier_normal_(torch.empty(classes * centres, dimension))
        self.weight = nn.Parameter(weight.reshape(classes, centres, dimension))

    @classmethod
    def class_directions(cls, entries: Mapping[str, Tensor]) -> Tensor | None:
        """Return the dominant sub-centre of each class: the one whose weight has the largest norm.

        The gradient of a cosine is orthogonal to the weight, so that every update increases its
        norm. The sub-centre that most utterances of the class select grows most.
        """
        weight = entries.get("weight")
        if weight is None or weight.dim() != 3:
            return None
        longest = weight.float().norm(dim=2).argmax(dim=1)
        return weight[torch.arange(len(weight)), longest]

    def forward(self, embeddings: Tensor, labels: Tensor) -> LossOutput:
        x, labels = flatten(embeddings, labels)
        centres = F.normalize(precise(self.weight), dim=2)
        cosine = F.linear(F.normalize(precise(x)), centres.flatten(0, 1))
        cosine = cosine.unflatten(1, centres.shape[:2]).amax(dim=2)
        own = cosine.gather(1, labels[:, None])
        shifted = self._penalised(cosine, labels)
        logits = self.scale * shifted.scatter(1, labels[:, None], angle_raised(own, self.margin))
        return LossOutput(F.cross_entropy(logits, labels), accuracy(logits, labels))

    def _penalised(self, cosine: Tensor, labels: Tensor) -> Tensor:
        """Return the cosines, with the angles to the nearest other classes decreased by the
        penalty.
        """
        count = min(self.options.top_k, self.classes - 1)
        if not count or not self.options.penalty:
            return cosine
        others = cosine.detach().scatter(1, labels[:, None], -math.inf)
        nearest = others.topk(count, dim=1).indices
        return cosine.scatter(
            1, nearest, angle_lowered(cosine.gather(1, nearest), self.options.penalty)
        )


def angle_lowered(cosine: Tensor, penalty: float) -> Tensor:
    """Return the cosine of an angle decreased by a penalty in radians. Below angle 0 it continues
    along a line, so that it always increases.
    """
    sine = (1.0 - cosine.square()).clamp(min=1e-12).sqrt()
    shifted = cosine * math.cos(penalty) + sine * math.sin(penalty)
    return torch.where(cosine < math.cos(penalty), shifted, cosine + 1.0 - math.cos(penalty))
