"""Equal error rates as published: linear interpolation of the ROC between neighbouring scores."""

from typing import NamedTuple

import numpy as np

from sasv.core.errors import SasvError

TARGET, NONTARGET, SPOOF = 0, 1, 2


class Eer(NamedTuple):
    """Equal error rate as a fraction, and the threshold at which (interpolated) both rates have it."""

    rate: float
    threshold: float


def eer(positives: np.ndarray, *negatives: np.ndarray) -> Eer:
    """Return the EER of positives (to be accepted, high scores) against all negatives together.

    The rates are those of the decision "accept where score >= threshold" at each distinct score; the EER is where
    the line between two neighbouring points of the ROC meets false acceptance = false rejection. After sorting, the
    crossing is found by bisection.

    Raises:
        SasvError: no positives or no negatives, or scores that are not finite.
    """
    if not len(positives) or not sum(map(len, negatives)):
        raise SasvError("an EER needs at least one positive and one negative trial")
    accepted = np.sort(positives)
    rejected = [np.sort(part) for part in negatives if len(part)]
    total = sum(map(len, rejected))
    if not all(np.isfinite(part[[0, -1]]).all() for part in (accepted, *rejected)):
        raise SasvError("scores must be finite; NaN or infinite scores have no EER")

    def rates(threshold: float) -> tuple[float, float]:
        miss = int(np.searchsorted(accepted, threshold)) / len(accepted)
        alarms = total - sum(int(np.searchsorted(part, threshold)) for part in rejected)
        return alarms / total, miss

    above, below = np.inf, -np.inf
    for part in (accepted, *rejected):
        low, high = 0, len(part)  # the first score from which misses are at least as frequent as false alarms
        while low < high:
            middle = (low + high) // 2
            alarm, miss = rates(part[middle])
            if miss >= alarm:
                high = middle
            else:
                low = middle + 1
        if low < len(part):
            above = min(above, float(part[low]))
        if low > 0:
            below = max(below, float(part[low - 1]))
    alarm_above, miss_above = rates(above)
    alarm_below, miss_below = rates(below)
    gap_above, gap_below = miss_above - alarm_above, miss_below - alarm_below
    share = gap_above / (gap_above - gap_below)
    rate = alarm_above + share * (alarm_below - alarm_above)
    threshold = below if np.isinf(above) else above if np.isinf(below) else above + share * (below - above)
    return Eer(rate, threshold)


def sasv_eers(scores: np.ndarray, labels: np.ndarray) -> dict[str, float | int | None]:
    """Return SASV-, SV- and SPF-EER in percent, their thresholds and the counts of trials.

    SASV: target against nontarget and spoof; SV: target against nontarget; SPF: target against spoof. A rate whose
    negatives are missing is None (SASV needs both kinds).

    Args:
        scores: (trials,), higher for target.
        labels: (trials,) 0 target, 1 nontarget, 2 spoof.
    """
    target, nontarget, spoof = (scores[labels == kind] for kind in (TARGET, NONTARGET, SPOOF))
    if not len(target):
        raise SasvError("no target trials: an EER needs trials of all kinds it compares")
    result: dict[str, float | int | None] = {}
    for name, groups in (("sasv", (nontarget, spoof)), ("sv", (nontarget,)), ("spf", (spoof,))):
        point = eer(target, *groups) if all(map(len, groups)) else None
        result[f"{name}_eer"] = None if point is None else 100 * point.rate
        result[f"{name}_threshold"] = None if point is None else point.threshold
    return result | {"targets": len(target), "nontargets": len(nontarget), "spoofs": len(spoof)}


def attack_eers(scores: np.ndarray, labels: np.ndarray, attacks: np.ndarray, names: list[str]) -> dict[str, float]:
    """Return the SPF-EER in percent of each attack against all targets."""
    target = scores[labels == TARGET]
    spoofed = labels == SPOOF
    present = [index for index in range(len(names)) if (spoofed & (attacks == index)).any()]
    present.sort(key=lambda index: names[index])
    return {names[index]: 100 * eer(target, scores[spoofed & (attacks == index)]).rate for index in present}
