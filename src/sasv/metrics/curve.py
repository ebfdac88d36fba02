"""Error rates at every threshold, for all trials or for a weighted resample of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from sasv.core.errors import SasvError

TARGET = 0
NONTARGET = 1
SPOOF = 2


class Eer(NamedTuple):
    """Equal error rate as a fraction, and the threshold at which both error rates (nearly) equal
    it.
    """

    rate: float
    threshold: float


class Points:
    """The distinct scores of trials as thresholds, and the number of trials of each class below
    each threshold.

    Args:
        scores: (trials,), higher for targets.
        labels: (trials,) 0 target, 1 nontarget, 2 spoof.

    Raises:
        SasvError: there are no trials, or a score is not finite.
    """

    def __init__(self, scores: np.ndarray, labels: np.ndarray):
        if not len(scores):
            raise SasvError("there are no trials, but metrics need at least one")
        self.scores, self.labels = np.asarray(scores, np.float64), labels
        kinds = [np.sort(self.scores[labels == kind]) for kind in (TARGET, NONTARGET, SPOOF)]
        if not all(np.isfinite(kind[[0, -1]]).all() for kind in kinds if len(kind)):
            raise SasvError(
                "scores must be finite, because there is no EER of NaN or infinite scores; fix "
                "the score file"
            )
        whole = np.sort(np.concatenate(kinds))
        distinct = np.append(True, whole[1:] != whole[:-1])
        self.thresholds = np.append(whole[distinct], np.inf)
        del whole, distinct
        self.below = [np.searchsorted(kind, self.thresholds).astype(np.int32) for kind in kinds]
        self.sizes = [len(kind) for kind in kinds]

    @cached_property
    def rows(self) -> list[np.ndarray]:
        """Rows of each class in increasing order of their scores."""
        members = [np.flatnonzero(self.labels == kind) for kind in (TARGET, NONTARGET, SPOOF)]
        return [rows[np.argsort(self.scores[rows], kind="stable")] for rows in members]

    def curve(self, weights: np.ndarray | None = None) -> "Curve":
        """Return the error rates at all thresholds.

        Args:
            weights: (trials,) weight of each trial; None gives each the weight 1.

        Raises:
            SasvError: there are no target trials.
        """
        if weights is None:
            rejected: list[np.ndarray] = list(self.below)
            sizes: list[float] = list(map(float, self.sizes))
        else:
            sums = [
                np.append(0.0, np.cumsum(weights[rows], dtype=np.float64)) for rows in self.rows
            ]
            rejected = [total[at] for total, at in zip(sums, self.below)]
            sizes = [float(total[-1]) for total in sums]
        if not sizes[TARGET]:
            raise SasvError(
                "there are no target trials, but metrics need trials of all classes that they "
                "compare"
            )
        alarms = [1 - part / size if size else None for part, size in zip(rejected[1:], sizes[1:])]
        return Curve(
            self.thresholds, rejected[TARGET] / sizes[TARGET], alarms[0], alarms[1], tuple(sizes)
        )


@dataclass(frozen=True)
class Curve:
    """Error rates of the decision "accept if score >= threshold" at all thresholds.

    Attributes:
        thresholds: (points,), in increasing order; the last one is infinite.
        miss: (points,) share of the targets that are rejected, increasing from 0 to 1.
        nontarget, spoof: (points,) share of the nontargets and of the spoofs that are accepted,
            decreasing from 1 to 0; None if there are no such trials.
        sizes: number (or total weight) of target, nontarget and spoofed trials.
    """

    thresholds: np.ndarray
    miss: np.ndarray
    nontarget: np.ndarray | None
    spoof: np.ndarray | None
    sizes: tuple[float, ...]

    def alarms(self, kinds: Sequence[int]) -> np.ndarray | None:
        """Return the false acceptance rate (points,) of one or several classes pooled (1 nontarget,
        2 spoof); None if there are no trials of one of them.
        """
        found = [(self.nontarget, self.spoof)[kind - 1] for kind in kinds]
        parts = [part for part in found if part is not None]
        if len(parts) < len(kinds):
            return None
        if len(parts) == 1:
            return parts[0]
        sizes = np.array([self.sizes[kind] for kind in kinds])
        return (parts[0] * sizes[0] + parts[1] * sizes[1]) / sizes.sum()

    def eer(self, *kinds: int) -> Eer | None:
        """Return the EER of targets against one or several classes (1 nontarget, 2 spoof), by
        linear interpolation of the ROC; None if there are no trials of one of them.

        The EER is the point at which the line between two neighbouring points of the ROC crosses
        the line of equal miss and false acceptance rates.
        """
        alarms = self.alarms(kinds)
        if alarms is None:
            return None
        at = self.crossing(alarms)
        above = self.miss[at] - alarms[at]
        below = self.miss[at - 1] - alarms[at - 1]
        share = above / (above - below)
        rate = alarms[at] + share * (alarms[at - 1] - alarms[at])
        low = self.thresholds[at - 1]
        high = self.thresholds[at]
        return Eer(float(rate), float(low if np.isinf(high) else high + share * (low - high)))

    def eer_nearest(self, *kinds: int) -> Eer | None:
        """Return the EER as the ASVspoof packages compute it: the mean of both error rates at the
        point at which they differ least.

        Equal scores are processed one after the other, those of targets first, because these
        packages use a stable sort of target scores followed by the other scores. For ties between
        targets and others, this is the least favourable order. The threshold also follows these
        packages: it is the highest score that is rejected.
        """
        alarms = self.alarms(kinds)
        if alarms is None:
            return None
        at = self.crossing(alarms)
        low = float(self.miss[at - 1])
        high = float(self.miss[at])
        first = float(alarms[at - 1])
        last = float(alarms[at])
        targets = self.sizes[TARGET]
        others = sum(self.sizes[kind] for kind in kinds)
        # Among the trials that tie at the crossing, misses increase first, one target at a time,
        # and then false acceptances decrease.
        steps = [(low, first)]
        steps += [(miss, first) for miss in _around(low, high, first, targets)]
        steps += [(high, alarm) for alarm in reversed(_around(last, first, high, others))]
        steps += [(high, last)]
        best = min(steps, key=lambda step: abs(step[0] - step[1]))
        before = at - 1 if best == steps[0] else at
        threshold = self.thresholds[before - 1] if before else self.thresholds[0] - 0.001
        return Eer(sum(best) / 2, float(threshold))

    def crossing(self, alarms: np.ndarray) -> int:
        """Return the index of the first point, but at least 1, at which the miss rate is at least
        the false acceptance rate ``alarms`` (points,).
        """
        return int(np.searchsorted(self.miss - alarms, 0.0))

    def at(self, threshold: float) -> int:
        """Return the index of the point that has the same decisions as a threshold."""
        return int(np.searchsorted(self.thresholds, threshold))


def _around(low: float, high: float, wanted: float, size: float) -> list[float]:
    """Return the rates closest to ``wanted``, in increasing order, among those from ``low`` to
    ``high`` in steps of one trial.
    """
    steps = round((high - low) * size)
    near = (wanted - low) * size
    found = {min(max(step, 0), steps) for step in (math.floor(near), math.ceil(near))}
    return [low + step / size for step in sorted(found)]
