"""The three-class loss: trials classified as target speaker, other speaker, or spoof."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sasv.losses.base import LossOutput, mean_where
from sasv.losses.spoof_head import LinearSpoofHead
from sasv.losses.trials import NONTARGET, SPOOF, TARGET, BatchTrials, TrialLoss


class TrialClassifier(nn.Module):
    """Computes three logits of a trial, which are linear in its cosine and in the score of the
    spoof head for the test utterance.
    """

    def __init__(self) -> None:
        super().__init__()
        # Initially, a high cosine means the target, and a low score of the spoof head a spoof.
        self.weight = nn.Parameter(torch.tensor([[10.0, 1.0], [0.0, 1.0], [5.0, -1.0]]))
        self.bias = nn.Parameter(torch.tensor([-5.0, 0.0, -2.5]))

    def forward(self, cosine: Tensor, spoof_score: Tensor) -> Tensor:
        """Return logits (..., 3), in the order of the classes of trials, for inputs of shape
        (...).
        """
        features = torch.stack(torch.broadcast_tensors(cosine, spoof_score), dim=-1)
        return features @ self.weight.to(features.dtype).T + self.bias.to(features.dtype)


class ThreeClass(TrialLoss):
    """Cross-entropy of three classes over the trials of a batch, with a weight of a third for each
    class.

    This is multi-class logistic regression (Brümmer, van Leeuwen, "On calibration of language
    recognition scores", Odyssey 2006) on the scores of speaker and countermeasure, trained together
    with the embedding. Because the classes weigh the same, the logits are log-likelihoods of the
    three classes up to a common number. The log-likelihood ratio of a decision sets the target
    against the mixture of the other two,

        z_target - log((1 - share) exp(z_nontarget) + share exp(z_spoof)),

    as in Wang, Kinnunen, Lee, Noé, Yamagishi, "Revisiting and improving scoring fusion for
    spoofing-aware speaker verification using compositional data analysis", Interspeech 2024; see
    ``sasv.scores.TrialClasses``.
    """

    def __init__(self, dimension: int, classes: int, options: Any = None) -> None:
        super().__init__(dimension, classes, options)
        self.spoof_head: LinearSpoofHead = LinearSpoofHead(dimension)
        self.trial_classes = TrialClassifier()

    @classmethod
    def trial_classifier(cls, entries: Mapping[str, Tensor]) -> tuple[Tensor, Tensor] | None:
        """Return weight (3, 2) and bias (3,) of the logits; None if the entries do not contain
        them.
        """
        weight = entries.get("trial_classes.weight")
        bias = entries.get("trial_classes.bias")
        return None if weight is None or bias is None else (weight, bias)

    def trial_loss(self, trials: BatchTrials) -> LossOutput:
        """Return the cross-entropy of the trials, with a weight of a third for each class."""
        logits = self.trial_classes(trials.cosines, self.spoof_head.score(trials.tests)[None])
        costs = F.cross_entropy(logits.flatten(0, 1), trials.kinds.flatten(), reduction="none")
        kinds = trials.kinds.flatten()
        value = (
            sum(
                (mean_where(costs, kinds == kind) for kind in (TARGET, NONTARGET, SPOOF)),
                costs.new_zeros(()),
            )
            / 3
        )
        right = (logits.detach().argmax(dim=-1) == trials.kinds).float()
        return LossOutput(value, 100.0 * right.sum() / max(right.numel(), 1))
