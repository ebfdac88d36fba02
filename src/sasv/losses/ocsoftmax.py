"""OC-softmax (Zhang et al. 2021), which trains a countermeasure."""

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from sasv.core.options import PositiveFloat, Range
from sasv.losses.base import Loss, LossOutput
from sasv.losses.spoof_head import OneClassSpoofHead

Cosine = Annotated[float, Range(-1, 1)]
"""A cosine."""


@dataclass(frozen=True, kw_only=True)
class OcSoftmaxOptions:
    """Options of OC-softmax.

    Attributes:
        alpha: scale of the cosines.
        bona_fide_margin: cosine above which bona fide speech should lie.
        spoof_margin: cosine below which spoofed speech should lie.
    """

    alpha: PositiveFloat = 20.0
    bona_fide_margin: Cosine = 0.9
    spoof_margin: Cosine = 0.2


class OcSoftmax(Loss):
    """OC-softmax over all utterances; see OneClassSpoofHead. It does not depend on the speakers.

    To train it beside a speaker loss, attach it to that loss as a spoof head
    (``--spoof-head ocsoftmax``).
    """

    Options = OcSoftmaxOptions
    spoof_aware = True

    def __init__(self, dimension: int, classes: int, options: Any = None) -> None:
        super().__init__(dimension, classes, options)
        self.spoof_head: OneClassSpoofHead = OneClassSpoofHead(
            dimension,
            self.options.alpha,
            self.options.bona_fide_margin,
            self.options.spoof_margin,
        )

    def forward(self, embeddings: Tensor, labels: Tensor) -> LossOutput:
        spoofed = labels == self.classes - 1
        with torch.no_grad():
            middle = (self.options.bona_fide_margin + self.options.spoof_margin) / 2
            right = (self.spoof_head.score(embeddings) < middle) == spoofed[:, None]
        return LossOutput(self.spoof_head(embeddings, spoofed), 100.0 * right.float().mean())
