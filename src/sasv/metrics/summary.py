"""All metrics of a set of scores, by name, for all trials or for a resample."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sasv.core.errors import SasvError
from sasv.metrics.cllr import llr_losses, mean_loss, min_cllr
from sasv.metrics.costs import (
    CM_MODELS,
    COST_MODELS,
    DEFAULT_COSTS,
    SASV_MODELS,
    SV_MODELS,
    Cost,
    CostModel,
)
from sasv.metrics.curve import NONTARGET, SPOOF, TARGET, Curve, Points
from sasv.metrics.eer import EERS
from sasv.metrics.tandem import AsvRates, asv_rates, min_t_dcf, t_eer

Values = dict[str, float | None]
TASKS = ("sasv", "cm")


@dataclass
class Measure:
    """Trials and the metrics to compute from them. Calling the object returns name -> metric; a
    metric is None if it needs trials of a class that is missing.

    Rates are in percent, costs are normalised, and Cllr is in bits. The names are ``sasv_eer``,
    ``sv_eer``, ``spf_eer`` (interpolated), the same with ``_nearest``; ``min_a_dcf.MODEL``,
    ``act_a_dcf.MODEL``; ``min_dcf.MODEL``, ``act_dcf.MODEL``; ``cllr``, ``min_cllr``; with the
    scores of two systems also ``min_t_dcf``, ``min_t_dcf_legacy``, ``t_eer``. The task ``cm``
    compares bona fide with spoofed speech (``cm_eer``).

    Attributes:
        scores: (trials,), higher for targets (for the task cm, higher for bona fide speech).
        labels: (trials,) 0 target, 1 nontarget, 2 spoof.
        task: sasv, or cm for the scores of a countermeasure.
        costs: cost models to use instead of the default ones.
        llr: whether the scores are natural log-likelihood ratios, so that Cllr and the actual costs
            at the Bayes threshold are meaningful.
        threshold: threshold of the actual costs, instead of the Bayes threshold.
        asv, cm: (trials,) scores of the two systems of a tandem, or None.
        asv_errors: error rates of the verification system in the t-DCF; None computes them from
            ``asv``.
        brief: whether to compute only the EERs and the first cost.
    """

    scores: np.ndarray
    labels: np.ndarray
    task: str = "sasv"
    costs: Sequence[CostModel] = ()
    llr: bool = False
    threshold: float | None = None
    asv: np.ndarray | None = None
    cm: np.ndarray | None = None
    asv_errors: AsvRates | None = None
    brief: bool = False

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise SasvError(f"'{self.task}' is not a task; use one of: {', '.join(TASKS)}")
        self.claims = self.labels
        if self.task == "cm":
            self.labels = bona_fide_as_target(self.labels)

    @cached_property
    def points(self) -> Points:
        """Thresholds of the scores."""
        return Points(self.scores, self.labels)

    @cached_property
    def tandem(self) -> tuple[Points, Points] | None:
        """Thresholds of the scores of a verification system and of a countermeasure."""
        if self.asv is None or self.cm is None:
            return None
        return Points(self.asv, self.claims), Points(self.cm, bona_fide_as_target(self.claims))

    @cached_property
    def losses(self) -> np.ndarray:
        """Loss of each trial in bits, (trials,), with the scores as log-likelihood ratios."""
        return llr_losses(self.scores, self.labels == TARGET)

    @property
    def eers(self) -> dict[str, tuple[int, ...]]:
        """Prefix of the name of an EER -> the classes against which it compares the targets."""
        return {"cm": (SPOOF,)} if self.task == "cm" else EERS

    def __call__(self, weights: np.ndarray | None = None) -> Values:
        """Return name -> metric.

        Args:
            weights: (trials,) weight of each trial; None gives each the weight 1.
        """
        curve = self.points.curve(weights)
        found: Values = {}
        for name, kinds in self.eers.items():
            point = curve.eer(*kinds)
            found[f"{name}_eer"] = None if point is None else 100 * point.rate
        for model in self.models[:1] if self.brief else self.models:
            kind = "a_dcf" if model.nontarget and model.spoof else "dcf"
            found[f"min_{kind}.{model.name}"] = _cost(model.minimum, curve)
            if self.llr or self.threshold is not None:
                found[f"act_{kind}.{model.name}"] = _cost(model.actual, curve, self.threshold)
        if self.brief:
            return found
        for name, kinds in self.eers.items():
            point = curve.eer_nearest(*kinds)
            found[f"{name}_eer_nearest"] = None if point is None else 100 * point.rate
        others = tuple(kind for kind in (NONTARGET, SPOOF) if curve.sizes[kind])
        alarms = curve.alarms(others) if others else None
        if self.llr:
            found["cllr"] = (
                None if alarms is None else mean_loss(self.losses, self.labels == TARGET, weights)
            )
        found["min_cllr"] = None if alarms is None else min_cllr(curve.miss, alarms)
        if self.tandem is not None:
            found |= self._tandem(weights)
        return found

    @property
    def models(self) -> list[CostModel]:
        """The given cost models, or the default ones for the task and the classes of trials."""
        if self.costs:
            return list(self.costs)
        if self.task == "cm":
            return [COST_MODELS[name] for name in CM_MODELS]
        names = (*SASV_MODELS, *SV_MODELS) if (self.labels == SPOOF).any() else SV_MODELS
        return [COST_MODELS[name] for name in names]

    def _tandem(self, weights: np.ndarray | None) -> Values:
        assert self.tandem is not None
        asv, cm = (points.curve(weights) for points in self.tandem)
        model = (self.costs or [DEFAULT_COSTS])[0]
        found: Values = {"min_t_dcf": None, "min_t_dcf_legacy": None, "t_eer": None}
        with contextlib.suppress(
            SasvError
        ):  # a resample may have no trials of a class that these need
            found["t_eer"] = 100 * t_eer(asv, cm, exact=weights is None).rate
        with contextlib.suppress(SasvError):
            errors = self.asv_errors or asv_rates(asv)
            found["min_t_dcf"] = min_t_dcf(cm, errors, model).value
            found["min_t_dcf_legacy"] = min_t_dcf(cm, errors, model, legacy=True).value
        return found


def bona_fide_as_target(labels: np.ndarray) -> np.ndarray:
    """Return labels (trials,) for a countermeasure: all trials except spoofs are bona fide (0)."""
    return np.where(labels == SPOOF, SPOOF, TARGET).astype(np.int8)


def thresholds(curve: Curve, task: str = "sasv") -> Values:
    """Return the thresholds of the interpolated EERs: ``sasv_threshold`` and so on."""
    kinds = {"cm": (SPOOF,)} if task == "cm" else EERS
    points = {name: curve.eer(*kind) for name, kind in kinds.items()}
    return {
        f"{name}_threshold": None if point is None else point.threshold
        for name, point in points.items()
    }


def _cost(function: Callable[..., Cost], *arguments: Any) -> float | None:
    """Return a cost, None if it needs trials of a class that is missing."""
    try:
        return function(*arguments).value
    except SasvError:
        return None
