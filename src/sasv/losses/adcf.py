"""A differentiable a-DCF: the detection cost of three classes with soft error counts."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sasv.core.errors import SasvError
from sasv.core.options import NonNegativeFloat, PositiveFloat, Probability
from sasv.losses.base import LossOutput, mean_where, precise
from sasv.losses.trials import NONTARGET, SPOOF, TARGET, BatchTrials, TrialLoss, TrialOptions


@dataclass(frozen=True, kw_only=True)
class ADcfOptions(TrialOptions):
    """Options of the differentiable a-DCF; the cost model is that of the a-DCF paper.

    Attributes:
        slope: slope of the sigmoid that replaces a decision, per unit of the cosine.
        target_prior, nontarget_prior, spoof_prior: priors of the classes of trials, which add up
            to 1.
        miss_cost: cost of rejecting a target.
        nontarget_cost, spoof_cost: cost of accepting a nontarget, and of accepting a spoof.
    """

    slope: PositiveFloat = 20.0
    target_prior: Probability = 0.9
    nontarget_prior: Probability = 0.05
    spoof_prior: Probability = 0.05
    miss_cost: PositiveFloat = 1.0
    nontarget_cost: NonNegativeFloat = 10.0
    spoof_cost: NonNegativeFloat = 20.0

    def __post_init__(self) -> None:
        if abs(self.target_prior + self.nontarget_prior + self.spoof_prior - 1) > 1e-9:
            raise SasvError(
                "the loss adcf: target_prior, nontarget_prior and spoof_prior must add up to 1"
            )
        if not self.normaliser:
            raise SasvError("the loss adcf: neither misses nor false acceptances may be free")

    @property
    def error_costs(self) -> tuple[float, float, float]:
        """Factors of the miss rate and of the false acceptance rates of nontargets and spoofs."""
        return (
            self.miss_cost * self.target_prior,
            self.nontarget_cost * self.nontarget_prior,
            self.spoof_cost * self.spoof_prior,
        )

    @property
    def normaliser(self) -> float:
        """Cost of the better of accepting and rejecting all trials, by which costs are divided."""
        return min(self.error_costs[0], sum(self.error_costs[1:]))


class ADcf(TrialLoss):
    """The normalised a-DCF of the trials of a batch at a learnt threshold, with a sigmoid instead
    of each decision.

    A class of trials that does not occur in a batch costs nothing. With an increasing slope, the
    value approaches the a-DCF itself.

    Source: Shim et al., "a-DCF: an architecture agnostic metric with application to spoofing-robust
    speaker verification", Odyssey 2024; Kurnaz et al., "Optimizing a-DCF for spoofing-robust
    speaker verification", IEEE Signal Processing Letters, 2025, who train with soft counts and a
    learnt threshold beside a classification.
    """

    Options = ADcfOptions

    def __init__(self, dimension: int, classes: int, options: Any = None) -> None:
        super().__init__(dimension, classes, options)
        self.threshold = nn.Parameter(torch.tensor(0.5))

    def trial_loss(self, trials: BatchTrials) -> LossOutput:
        """Return the soft a-DCF of the trials."""
        above = trials.cosines - precise(self.threshold)
        accepted = torch.sigmoid(self.options.slope * above)
        miss, nontarget, spoof = self.options.error_costs
        value = (
            miss * mean_where(1.0 - accepted, trials.kinds == TARGET)
            + nontarget * mean_where(accepted, trials.kinds == NONTARGET)
            + spoof * mean_where(accepted, trials.kinds == SPOOF)
        )
        right = ((above.detach() > 0) == (trials.kinds == TARGET)).float()
        return LossOutput(
            value / self.options.normaliser, 100.0 * right.sum() / max(right.numel(), 1)
        )
