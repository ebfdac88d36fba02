"""Equal error rates as published: linear interpolation of the ROC between neighbouring scores."""

import numpy as np

from sasv.core.errors import SasvError
from sasv.metrics.curve import NONTARGET, SPOOF, TARGET, Eer, Points

EERS = {"sasv": (NONTARGET, SPOOF), "sv": (NONTARGET,), "spf": (SPOOF,)}
"""Classes against which each rate compares the targets."""


def eer(positives: np.ndarray, *negatives: np.ndarray) -> Eer:
    """Return the EER of positives against all negatives together.

    Args:
        positives: (trials,) scores of trials that should be accepted, which should be high.
        negatives: (trials,) scores of trials that should be rejected, in one or several arrays.

    Raises:
        SasvError: there are no positives or no negatives, or a score is not finite.
    """
    count = sum(map(len, negatives))
    if not len(positives) or not count:
        raise SasvError("an EER needs at least one positive and one negative trial")
    labels = np.repeat(np.array([TARGET, NONTARGET], np.int8), [len(positives), count])
    found = Points(np.concatenate((positives, *negatives)), labels).curve().eer(NONTARGET)
    assert found is not None
    return found


def sasv_eers(scores: np.ndarray, labels: np.ndarray) -> dict[str, float | int | None]:
    """Return the SASV-EER, SV-EER and SPF-EER in percent, their thresholds, and the numbers of
    trials.

    SASV compares targets with nontargets and spoofs, SV with nontargets, and SPF with spoofs. A
    rate is None if there are no negatives for it (SASV needs both nontargets and spoofs).

    Args:
        scores: (trials,), higher for targets.
        labels: (trials,) 0 target, 1 nontarget, 2 spoof.
    """
    curve = Points(scores, labels).curve()
    result: dict[str, float | int | None] = {}
    for name, kinds in EERS.items():
        point = curve.eer(*kinds)
        result[f"{name}_eer"] = None if point is None else 100 * point.rate
        result[f"{name}_threshold"] = None if point is None else point.threshold
    return result | dict(zip(("targets", "nontargets", "spoofs"), map(round, curve.sizes)))
