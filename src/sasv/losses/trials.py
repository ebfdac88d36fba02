"""Losses over the trials that are formed from the pairs of a batch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sasv.core.options import NonNegativeFloat
from sasv.losses.base import Loss, LossOutput, ScaledMarginOptions, inside
from sasv.losses.classification import AamSoftmax
from sasv.losses.metric import cosines

TARGET = 0
NONTARGET = 1
SPOOF = 2


class BatchTrials(NamedTuple):
    """Trials of a batch: every bona fide item is enrolled with its utterance 0 and compared with
    utterance 1 of all items.

    Attributes:
        cosines: (bona fide items, items).
        kinds: (bona fide items, items): TARGET (the same speaker), NONTARGET (bona fide speech of
            another speaker) or SPOOF (any spoofed speech; in the published protocols, most of it
            imitates the claimed speaker).
        tests: (items, dimension): the test embeddings.
    """

    cosines: Tensor
    kinds: Tensor
    tests: Tensor


def trials_of(embeddings: Tensor, labels: Tensor, spoof_class: int) -> BatchTrials:
    """Return the trials of a batch.

    Args:
        embeddings: (items, 2, dimension).
        labels: (items,) classes.
        spoof_class: the class of spoofed speech.
    """
    spoofed = labels == spoof_class
    enrolled = labels[~spoofed]
    kinds = torch.where(enrolled[:, None] == labels[None], TARGET, NONTARGET)
    kinds = kinds.masked_fill(spoofed[None], SPOOF)
    return BatchTrials(cosines(embeddings[~spoofed, 0], embeddings[:, 1]), kinds, embeddings[:, 1])


@dataclass(frozen=True, kw_only=True)
class TrialOptions(ScaledMarginOptions):
    """Options of a loss over trials; margin and scale are those of its AAM-softmax.

    Attributes:
        classification_weight: weight of AAM-softmax over the speakers and the spoof class; 0 uses
            only the trials.
    """

    classification_weight: NonNegativeFloat = 1.0


class TrialLoss(Loss):
    """A loss over the trials of a batch, plus AAM-softmax over speakers and the spoof class, as in
    the SASV loss.
    """

    Options = TrialOptions
    spoof_aware = True

    def __init__(self, dimension: int, classes: int, options: Any = None) -> None:
        super().__init__(dimension, classes, options)
        if self.options.classification_weight:
            self.aamsoftmax = AamSoftmax(dimension, classes, self.options)

    @classmethod
    def class_directions(cls, entries: Mapping[str, Tensor]) -> Tensor | None:
        """Return those of the classification."""
        return AamSoftmax.class_directions(inside(entries, "aamsoftmax"))

    def forward(self, embeddings: Tensor, labels: Tensor) -> LossOutput:
        found = self.trial_loss(trials_of(embeddings, labels, self.classes - 1))
        weight = self.options.classification_weight
        if not weight:
            return found
        classified = self.aamsoftmax(embeddings, labels)
        return LossOutput(weight * classified.value + found.value, classified.accuracy)

    def trial_loss(self, trials: BatchTrials) -> LossOutput:
        """Return the loss of the trials, and the share of correctly classified trials in
        percent.
        """
        raise NotImplementedError
