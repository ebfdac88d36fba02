"""Metrics of a countermeasure followed by a speaker verification system: t-DCF and t-EER.

Source: Kinnunen et al., "Tandem assessment of spoofing countermeasures and automatic speaker
verification: fundamentals", IEEE/ACM TASLP 2020 (t-DCF; legacy: ASVspoof 2019 evaluation plan);
Kinnunen et al., "t-EER: parameter-free tandem evaluation of countermeasures and biometric
comparators", IEEE TPAMI 2023.
"""

from typing import NamedTuple

import numpy as np

from sasv.core.errors import SasvError
from sasv.metrics.costs import Cost, CostModel
from sasv.metrics.curve import NONTARGET, Curve

COARSE = 512
"""Number of thresholds in the coarse search for a t-EER."""


class AsvRates(NamedTuple):
    """Error rates of a speaker verification system at its threshold, as fractions."""

    miss: float
    nontarget: float
    spoof: float


ASVSPOOF5_ASV = AsvRates(0.01880141010575793, 0.01881016557566423, 0.4607082907604729)
"""Error rates of the organisers' system of ASVspoof 5, from the evaluation package."""


def asv_rates(curve: Curve) -> AsvRates:
    """Return the error rates of a verification system at its nearest-point EER threshold, as the
    ASVspoof packages do.

    Raises:
        SasvError: there are no target, nontarget, or spoofed trials.
    """
    point = curve.eer_nearest(NONTARGET)
    if point is None or curve.spoof is None:
        raise SasvError("ASV error rates need target, nontarget and spoofed trials")
    at = curve.at(point.threshold)
    assert curve.nontarget is not None
    return AsvRates(float(curve.miss[at]), float(curve.nontarget[at]), float(curve.spoof[at]))


def min_t_dcf(countermeasure: Curve, asv: AsvRates, model: CostModel, legacy: bool = False) -> Cost:
    """Return the minimum normalised t-DCF over the thresholds of a countermeasure.

    Args:
        countermeasure: curve in which bona fide trials are targets.
        asv: error rates of the verification system that follows the countermeasure.
        model: priors and costs.
        legacy: whether to use the form of ASVspoof 2019, without the cost of an error-free
            countermeasure.

    Raises:
        SasvError: there are no spoofed trials, or the error rates of the verification system make a
            t-DCF meaningless.
    """
    miss, nontarget, spoof = model.weights
    if countermeasure.spoof is None:
        raise SasvError("a t-DCF needs spoofed trials")
    without = miss * asv.miss + nontarget * asv.nontarget
    missed = miss - without
    accepted = spoof * asv.spoof
    if missed < 0 or accepted < 0:
        raise SasvError(
            f"t-DCF: the error rates of the verification system are too high ({asv}); are they "
            "fractions?"
        )
    base = 0.0 if legacy else without
    default = base + min(missed, accepted)
    if not default:
        raise SasvError(
            "t-DCF: the verification system accepts no spoof, so a countermeasure has no effect"
        )
    costs = (base + missed * countermeasure.miss + accepted * countermeasure.spoof) / default
    at = int(costs.argmin())
    return Cost(float(costs[at]), float(countermeasure.thresholds[at]))


class TandemEer(NamedTuple):
    """Concurrent t-EER as a fraction, and the thresholds of both systems."""

    rate: float
    asv_threshold: float
    cm_threshold: float


class TandemPath(NamedTuple):
    """Points at which the miss rate and the false acceptance rate of the tandem are equal, one for
    each threshold of the verification system.

    Attributes:
        asv, cm: (points,) indices of points on the two curves.
        rate: (points,) mean of both error rates of the tandem; NaN if they are equal at no
            threshold of the countermeasure.
    """

    asv: np.ndarray
    cm: np.ndarray
    rate: np.ndarray


def t_eer_path(
    asv: Curve, cm: Curve, spoofs: float = 0.5, points: np.ndarray | None = None
) -> TandemPath:
    """Return the t-EER path for a given share of spoofs among the negatives.

    For each point of the verification system, the point of the countermeasure is found by
    bisection: with an increasing threshold of the countermeasure, the miss rate of the tandem never
    decreases and its false acceptance rate never increases.

    Args:
        asv: curve of the verification system with target, nontarget and spoofed trials.
        cm: curve of the countermeasure, in which bona fide trials are targets.
        spoofs: share of spoofs among the negatives, from 0 to 1.
        points: indices of the points on ``asv`` to use; None uses all.

    Raises:
        SasvError: there are no target, nontarget, or spoofed trials.
    """
    if asv.nontarget is None or asv.spoof is None or cm.spoof is None:
        raise SasvError("a t-EER needs target, nontarget and spoofed trials")
    points = np.arange(len(asv.thresholds)) if points is None else points
    missed = asv.miss[points]
    nontarget = (1 - spoofs) * asv.nontarget[points]
    spoof = spoofs * asv.spoof[points]
    alarm = cm.spoof

    def gap(at: np.ndarray) -> np.ndarray:
        passed = 1 - cm.miss[at]
        return 1 - passed * (1 - missed) - (passed * nontarget + alarm[at] * spoof)

    low = np.zeros(len(points), np.int64)
    high = np.full(len(points), len(cm.thresholds) - 1)
    while (low < high).any():
        middle = (low + high) // 2
        reached = gap(middle) >= 0
        low = np.where(reached, low, np.minimum(middle + 1, high))
        high = np.where(reached, middle, high)
    before = np.maximum(low - 1, 0)
    best = np.where(np.abs(gap(before)) <= np.abs(gap(low)), before, low)
    passed = 1 - cm.miss[best]
    rate = (1 - passed * (1 - missed) + passed * nontarget + alarm[best] * spoof) / 2
    return TandemPath(points, best, np.where(missed < nontarget + spoof, rate, np.nan))


def t_eer(asv: Curve, cm: Curve, exact: bool = True) -> TandemEer:
    """Return the concurrent t-EER: the point of the path at which the tandem accepts nontargets and
    spoofs equally often, so that the t-EER does not depend on the share of spoofs.

    Args:
        asv, cm: as in t_eer_path.
        exact: whether to evaluate every threshold of the verification system. Otherwise, some
            thresholds are evaluated, and then those around the best one (for resamples).

    Raises:
        SasvError: a class of trials is missing, or the t-EER does not exist for these scores.
    """
    points = np.arange(len(asv.thresholds))
    if not exact and len(points) > 4 * COARSE:
        coarse = np.unique(np.linspace(0, len(points) - 1, COARSE).astype(np.int64))
        path = t_eer_path(asv, cm, points=coarse)
        at = int(np.nanargmin(_distance(asv, cm, path)))
        points = np.arange(coarse[max(at - 1, 0)], coarse[min(at + 1, len(coarse) - 1)] + 1)
    path = t_eer_path(asv, cm, points=points)
    distance = _distance(asv, cm, path)
    if np.isnan(distance).all():
        raise SasvError(
            "the t-EER does not exist for these scores: no thresholds make the tandem's errors "
            "equal"
        )
    at = int(np.nanargmin(distance))
    assert asv.spoof is not None and cm.spoof is not None
    rate = asv.spoof[path.asv[at]] * cm.spoof[path.cm[at]]
    return TandemEer(
        float(rate), float(asv.thresholds[path.asv[at]]), float(cm.thresholds[path.cm[at]])
    )


def _distance(asv: Curve, cm: Curve, path: TandemPath) -> np.ndarray:
    """Return the difference between the tandem's acceptance rates of nontargets and of spoofs along
    a path, (points,); NaN where it is undefined.
    """
    assert asv.nontarget is not None and asv.spoof is not None and cm.spoof is not None
    spoof = asv.spoof[path.asv]
    passed = 1 - cm.miss[path.cm]
    valid = ~np.isnan(path.rate) & (spoof > 0) & (passed > 0)
    result = np.full(len(spoof), np.nan)
    np.divide(asv.nontarget[path.asv], spoof, out=result, where=valid)
    other = np.full(len(spoof), np.nan)
    np.divide(cm.spoof[path.cm], passed, out=other, where=valid)
    return np.abs(result - other)
