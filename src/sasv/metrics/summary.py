"""All metrics of a set of scores by name, for all trials or for a resample."""

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
    """What is measured of some trials; calling it gives the metrics by name, None where trials of a
    kind are missing.

    Rates are in percent, costs normalised, Cllr in bits. Names: ``sasv_eer``, ``sv_eer``,
    ``spf_eer`` (interpolated), the same with ``_nearest``; ``min_a_dcf.MODEL``,
    ``act_a_dcf.MODEL``; ``min_dcf.MODEL``, ``act_dcf.MODEL``; ``cllr``, ``min_cllr``; with two
    scores ``min_t_dcf``, ``min_t_dcf_legacy``, ``t_eer``. The task ``cm`` sets bona fide against
    spoofed speech (``cm_eer``).

    Attributes:
        scores: (trials,), higher for target (for bona fide, task cm).
        labels: (trials,) 0 target, 1 nontarget, 2 spoof.
        task: sasv, or cm for the scores of a countermeasure.
        costs: cost models in place of the usual ones.
        llr: the scores are log-likelihood ratios: actual costs at the Bayes threshold and Cllr have
            a meaning.
        threshold: of the actual costs, in place of the Bayes threshold.
        asv, cm: (trials,) scores of both systems of a tandem, or None.
        asv_errors: error rates of the verification system of the t-DCF; None takes those of
            ``asv``.
        brief: EERs and the first cost alone.
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
        """Loss of each trial as an LLR, in bits."""
        return llr_losses(self.scores, self.labels == TARGET)

    @property
    def eers(self) -> dict[str, tuple[int, ...]]:
        """What targets are set against, by the first word of a rate."""
        return {"cm": (SPOOF,)} if self.task == "cm" else EERS

    def __call__(self, weights: np.ndarray | None = None) -> Values:
        """Return the metrics; each trial counts ``weights`` times (trials,), once where left
        out.
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
        """Cost models: the given ones, or the usual ones of the task and the kinds of trial."""
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
        with contextlib.suppress(SasvError):  # a resample may lack what these need
            found["t_eer"] = 100 * t_eer(asv, cm, exact=weights is None).rate
        with contextlib.suppress(SasvError):
            errors = self.asv_errors or asv_rates(asv)
            found["min_t_dcf"] = min_t_dcf(cm, errors, model).value
            found["min_t_dcf_legacy"] = min_t_dcf(cm, errors, model, legacy=True).value
        return found


def bona_fide_as_target(labels: np.ndarray) -> np.ndarray:
    """Return labels as a countermeasure sees them: everything but spoofs is bona fide (0)."""
    return np.where(labels == SPOOF, SPOOF, TARGET).astype(np.int8)


def thresholds(curve: Curve, task: str = "sasv") -> Values:
    """Return the interpolated EER thresholds: ``sasv_threshold`` and so on."""
    kinds = {"cm": (SPOOF,)} if task == "cm" else EERS
    points = {name: curve.eer(*kind) for name, kind in kinds.items()}
    return {
        f"{name}_threshold": None if point is None else point.threshold
        for name, point in points.items()
    }


def _cost(function: Callable[..., Cost], *arguments: Any) -> float | None:
    """Return a cost, None where trials are missing that it needs."""
    try:
        return function(*arguments).value
    except SasvError:
        return None
