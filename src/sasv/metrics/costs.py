"""Detection costs with named cost models: the DCF of two classes and the architecture-agnostic
a-DCF of three.

Source: Shim et al., "a-DCF: an architecture agnostic metric with application to spoofing-robust
speaker verification", Odyssey 2024; evaluation plan of ASVspoof 5 (DCF of track 1, a-DCF of track
2); NIST SRE (DCF).
"""

from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np

from sasv.core.errors import SasvError
from sasv.metrics.curve import Curve

LEAST_RATIO = 1e-12
"""Limit of the ratio between the weights of the two kinds of error, in either direction."""


class Cost(NamedTuple):
    """A normalised cost and its threshold. The better of accepting and rejecting all trials
    costs 1.
    """

    value: float
    threshold: float


@dataclass(frozen=True)
class CostModel:
    """Priors of the three classes of trials, and costs of the errors.

    Attributes:
        name: name that is printed with every value, because values of different cost models cannot
            be compared.
        target, nontarget, spoof: priors, which add up to 1. For a countermeasure, "target" means
            bona fide speech.
        miss: cost of rejecting a target.
        false_nontarget, false_spoof: cost of accepting a nontarget, and of accepting a spoof.
    """

    name: str
    target: float
    nontarget: float
    spoof: float
    miss: float = 1.0
    false_nontarget: float = 10.0
    false_spoof: float = 10.0

    def __post_init__(self) -> None:
        values = [value for value in asdict(self).values() if not isinstance(value, str)]
        if not np.isfinite(values).all():
            raise SasvError(f"cost model {self.name}: every number must be finite")
        if min(values) < 0 or abs(self.target + self.nontarget + self.spoof - 1) > 1e-9:
            raise SasvError(
                f"cost model {self.name}: priors must add up to 1, and nothing may be negative"
            )
        if not self.weights[0] or not sum(self.weights[1:]):
            raise SasvError(
                f"cost model {self.name}: neither misses nor false acceptances may be free"
            )
        if not LEAST_RATIO < sum(self.weights[1:]) / self.weights[0] < 1 / LEAST_RATIO:
            raise SasvError(
                f"cost model {self.name}: one kind of error costs more than {1 / LEAST_RATIO:g} "
                "times as much as the other, so that every trial would be decided alike"
            )

    @property
    def weights(self) -> tuple[float, float, float]:
        """Factors of the miss rate and of the false acceptance rates of nontargets and spoofs."""
        return (
            self.miss * self.target,
            self.false_nontarget * self.nontarget,
            self.false_spoof * self.spoof,
        )

    @property
    def default(self) -> float:
        """Cost of the better of accepting and rejecting all trials, by which costs are divided."""
        return min(self.weights[0], sum(self.weights[1:]))

    @property
    def spoof_share(self) -> float:
        """Weight of spoofs in the mixture of spoofs and nontargets, in [0, 1]."""
        _, nontarget, spoof = self.weights
        return spoof / (nontarget + spoof)

    @property
    def bayes_threshold(self) -> float:
        """Bayes threshold for natural log-likelihood ratios of targets against the mixture of the
        other classes, in which these are weighted by their costs.
        """
        return float(np.log(sum(self.weights[1:]) / self.weights[0]))

    def costs(self, curve: Curve) -> np.ndarray:
        """Return the normalised cost at each point of a curve, (points,).

        Raises:
            SasvError: there are no trials of a class with a nonzero cost.
        """
        total = self.weights[0] * curve.miss
        for name, weight in zip(("nontarget", "spoof"), self.weights[1:]):
            if weight:
                rates = getattr(curve, name)
                if rates is None:
                    raise SasvError(
                        f"cost model {self.name} needs {name} trials, but there are none"
                    )
                total = total + weight * rates
        return total / self.default

    def minimum(self, curve: Curve) -> Cost:
        """Return the minimum cost over all thresholds. The threshold is midway between the two
        neighbouring scores.
        """
        costs = self.costs(curve)
        at = int(costs.argmin())
        low = curve.thresholds[max(0, at - 1)]
        high = curve.thresholds[at]
        threshold = (
            np.nextafter(low, np.inf)
            if np.isinf(high)
            else min(max(low + (high - low) / 2, low), high)
        )
        return Cost(float(costs[at]), float(threshold if threshold > low else high))

    def actual(self, curve: Curve, threshold: float | None = None) -> Cost:
        """Return the cost at a threshold; if none is given, at the Bayes threshold of
        log-likelihood ratios.
        """
        threshold = self.bayes_threshold if threshold is None else threshold
        return Cost(float(self.costs(curve)[curve.at(threshold)]), threshold)

    def describe(self) -> str:
        """Describe the cost model in one line."""
        return (
            f"{self.name}: priors target {self.target:g}, nontarget {self.nontarget:g}, spoof "
            f"{self.spoof:g}; costs miss {self.miss:g}, nontarget {self.false_nontarget:g}, spoof "
            f"{self.false_spoof:g}"
        )


COST_MODELS = {
    model.name: model
    for model in (
        CostModel("asvspoof5", 0.9405, 0.0095, 0.05),
        CostModel("a-dcf-paper", 0.9, 0.05, 0.05, 1, 10, 20),
        CostModel("track1", 0.95, 0.0, 0.05),
        CostModel("sre-0.01", 0.01, 0.99, 0.0, 1, 1, 0),
        CostModel("sre-0.05", 0.05, 0.95, 0.0, 1, 1, 0),
    )
}
"""asvspoof5: a-DCF of track 2; a-dcf-paper: its paper's default; track1: countermeasures of
ASVspoof 5; sre: minDCF.
"""

DEFAULT_COSTS = COST_MODELS["asvspoof5"]
"""Cost model of decisions and calibrations for which no other one is given."""

SASV_MODELS = ("asvspoof5", "a-dcf-paper")
SV_MODELS = ("sre-0.01", "sre-0.05")
CM_MODELS = ("track1",)


def cost_model(text: str) -> CostModel:
    """Return a cost model.

    Args:
        text: the name of a cost model, or six numbers
            ``target,nontarget,spoof,miss,false_nontarget,false_spoof``.

    Raises:
        SasvError: the text is neither.
    """
    if text in COST_MODELS:
        return COST_MODELS[text]
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != 6:
        raise SasvError(
            f"'{text}' is not a cost model; use one of {', '.join(COST_MODELS)}, or give six "
            "numbers: the priors of target, nontarget, and spoof, then the costs of a miss, of an "
            "accepted nontarget, and of an accepted spoof"
        )
    return CostModel(text, *values)
