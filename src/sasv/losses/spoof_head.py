"""Spoof heads: a second head on the same embedding, which scores whether speech is bona fide."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sasv.losses.base import mean_where, precise


class LinearSpoofHead(nn.Module):
    """A linear layer on the length-normalised embedding, trained with the cross-entropy of two
    classes.

    Both classes have the same weight, regardless of the number of spoofs in a batch. The score is
    therefore a log-likelihood ratio of bona fide against spoofed speech, as far as the training
    data resemble the data in use.

    Args:
        dimension: dimension of the embeddings.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.normal_(torch.empty(dimension), std=dimension**-0.5))
        self.bias = nn.Parameter(torch.zeros(()))

    def score(self, embeddings: Tensor) -> Tensor:
        """Return the scores (...) of embeddings (..., dimension); higher means more likely bona
        fide.
        """
        return F.normalize(precise(embeddings), dim=-1) @ precise(self.weight) + precise(self.bias)

    def forward(self, embeddings: Tensor, spoofed: Tensor) -> Tensor:
        """Return the loss.

        Args:
            embeddings: (items, utterances, dimension).
            spoofed: (items,) boolean.
        """
        scores = self.score(embeddings)
        rows = spoofed[:, None].expand_as(scores)
        bona_fide = mean_where(F.softplus(-scores), ~rows)
        return (bona_fide + mean_where(F.softplus(scores), rows)) / 2


class OneClassSpoofHead(nn.Module):
    """OC-softmax: bona fide speech is trained to lie inside a cone around one direction, and
    spoofed speech anywhere outside a wider cone.

    Source: Zhang, Jiang, Duan, "One-class learning towards synthetic voice spoofing detection",
    IEEE Signal Processing Letters 28, 2021.

    Args:
        dimension: dimension of the embeddings.
        alpha: scale of the cosines.
        bona_fide_margin: cosine above which bona fide speech should lie (m_0).
        spoof_margin: cosine below which spoofed speech should lie (m_1).
    """

    def __init__(
        self,
        dimension: int,
        alpha: float = 20.0,
        bona_fide_margin: float = 0.9,
        spoof_margin: float = 0.2,
    ) -> None:
        super().__init__()
        self.alpha = alpha
        self.bona_fide_margin = bona_fide_margin
        self.spoof_margin = spoof_margin
        self.weight = nn.Parameter(nn.init.normal_(torch.empty(dimension), std=dimension**-0.5))

    def score(self, embeddings: Tensor) -> Tensor:
        """Return the cosine (...) of embeddings (..., dimension) with the direction of bona fide
        speech.
        """
        return F.normalize(precise(embeddings), dim=-1) @ F.normalize(precise(self.weight), dim=0)

    def forward(self, embeddings: Tensor, spoofed: Tensor) -> Tensor:
        """Return the loss.

        Args:
            embeddings: (items, utterances, dimension).
            spoofed: (items,) boolean.
        """
        scores = self.score(embeddings)
        missing = torch.where(
            spoofed[:, None], scores - self.spoof_margin, self.bona_fide_margin - scores
        )
        return F.softplus(self.alpha * missing).mean()


SPOOF_HEADS: dict[str, type[LinearSpoofHead] | type[OneClassSpoofHead]] = {
    "linear": LinearSpoofHead,
    "ocsoftmax": OneClassSpoofHead,
}
"""Spoof heads that can be attached to any loss, by name."""
