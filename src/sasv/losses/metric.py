"""Losses that compare embeddings: prototypical, angular prototypical (Chung et al. 2020), GE2E (Wan
et al. 2018).
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sasv.losses.base import Loss, LossOutput, MarginOptions, accuracy, own_column, precise

LEAST_SCALE = 1e-6


def cosines(rows: Tensor, columns: Tensor) -> Tensor:
    """Return the cosine of every row with every column, float32 (rows, columns)."""
    return F.normalize(precise(rows), dim=-1) @ F.normalize(precise(columns), dim=-1).transpose(
        -1, -2
    )


class Prototypical(Loss):
    """Prototypical loss (Snell et al. 2017) on the negative squared distance of utterance 0 to the
    mean of the other utterances of each item.
    """

    def forward(self, embeddings: Tensor, labels: Tensor) -> LossOutput:
        query = embeddings[:, 0].float()
        prototype = embeddings[:, 1:].float().mean(dim=1)
        logits = -(query[:, None] - prototype[None]).square().sum(dim=2)
        own = own_column(len(logits), logits.device)
        return LossOutput(F.cross_entropy(logits, own), accuracy(logits, own))


class ReleasedPrototypical(Loss):
    """The loss that the released code computes under the name ``proto``. It exists to reproduce
    that code and should not be used for training.

    Its distance runs over the items instead of the dimensions (because PyTorch changed the axis of
    its pairwise distance), so that the "logits" are (items, dimension). ``Prototypical`` is the
    loss that the authors intended.
    """

    def forward(self, embeddings: Tensor, labels: Tensor) -> LossOutput:
        query = embeddings[:, 0].float()
        prototype = embeddings[:, 1:].float().mean(dim=1)
        offset = 1e-6  # added by torch's pairwise distance
        logits = -(query[:, :, None] - prototype.T[None] + offset).square().sum(dim=2)
        own = own_column(len(logits), logits.device)
        return LossOutput(F.cross_entropy(logits, own), accuracy(logits, own))


class AngularPrototypical(Loss):
    """Angular prototypical loss on the scaled cosine of utterance 0 with the mean of the other
    utterances of each item.
    """

    def __init__(self, dimension: int, classes: int, options: Any = None) -> None:
        super().__init__(dimension, classes, options)
        self.w = nn.Parameter(torch.tensor(10.0))
        self.b = nn.Parameter(torch.tensor(-5.0))

    def forward(self, embeddings: Tensor, labels: Tensor) -> LossOutput:
        logits = cosines(embeddings[:, 0], embeddings[:, 1:].mean(dim=1))
        logits = logits * self.w.clamp(min=LEAST_SCALE) + self.b
        own = own_column(len(logits), logits.device)
        return LossOutput(F.cross_entropy(logits, own), accuracy(logits, own))


class Triplet(Loss):
    """Triplet loss (Schroff et al. 2015): a hinge on squared distances of unit vectors, with the
    hardest negative in the batch.
    """

    Options = MarginOptions

    def __init__(self, dimension: int, classes: int, options: Any = None) -> None:
        super().__init__(dimension, classes, options)
        self.margin = self.options.margin

    def forward(self, embeddings: Tensor, labels: Tensor) -> LossOutput:
        x = F.normalize(embeddings.float(), dim=2)
        distances = 2 - 2 * x[:, 0] @ x[:, 1].T
        own = own_column(len(x), x.device)
        negatives = distances.masked_fill(labels[:, None] == labels[None], math.inf)
        gap = distances.diagonal() - negatives.min(dim=1).values + self.margin
        return LossOutput(gap.clamp(min=0).mean(), accuracy(-distances, own))


class Ge2e(Loss):
    """Generalised end-to-end loss, softmax variant. The centroid of the speaker excludes the
    utterance itself.
    """

    def __init__(self, dimension: int, classes: int, options: Any = None) -> None:
        super().__init__(dimension, classes, options)
        self.w = nn.Parameter(torch.tensor(10.0))
        self.b = nn.Parameter(torch.tensor(-5.0))

    def forward(self, embeddings: Tensor, labels: Tensor) -> LossOutput:
        x = embeddings.float()
        items, utterances, _ = x.shape
        centroid = x.mean(dim=1)
        without = (x.sum(dim=1, keepdim=True) - x) / (utterances - 1)
        similar = cosines(x.transpose(0, 1), centroid[None].expand(utterances, -1, -1))
        own = F.cosine_similarity(x, without, dim=2).transpose(0, 1)
        diagonal = torch.eye(items, dtype=torch.bool, device=x.device)
        similar = torch.where(diagonal, own[:, :, None], similar).clamp(min=LEAST_SCALE)
        logits = (similar * self.w.clamp(min=LEAST_SCALE) + self.b).reshape(-1, items)
        wanted = own_column(items, x.device).repeat(utterances)
        return LossOutput(F.cross_entropy(logits, wanted), accuracy(logits, wanted))


class OneDirectional(nn.Module):
    """The metric loss of the SASV system, in which spoofed speech is only used as negatives.

    Rows are utterances 0 of the bona fide items; columns are utterances 1 of the bona fide items,
    followed by those of the spoofed items.
    """

    def __init__(self) -> None:
        super().__init__()
        self.w1 = nn.Parameter(torch.tensor(10.0))
        self.b1 = nn.Parameter(torch.tensor(-5.0))

    def forward(self, embeddings: Tensor, spoofed: Tensor) -> Tensor:
        """Return the loss of embeddings (items, 2, dimension); ``spoofed`` is bool (items,)."""
        bona_fide = embeddings[~spoofed]
        columns = torch.cat((bona_fide[:, 1], embeddings[spoofed][:, 1]))
        logits = cosines(bona_fide[:, 0], columns) * self.w1.clamp(min=LEAST_SCALE) + self.b1
        return F.cross_entropy(logits, own_column(len(logits), logits.device))
