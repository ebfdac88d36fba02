"""Cost of log-likelihood ratios in bits: Cllr, and its minimum over all monotone calibrations.

Source: Bruemmer and du Preez, "Application-independent evaluation of speaker detection", Computer
Speech & Language 2006; the minimum by pool-adjacent-violators, which is the convex hull of the ROC.
"""

import numpy as np

from sasv.core.errors import SasvError


def llr_losses(llrs: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Return the loss of each trial in bits, (trials,).

    Args:
        llrs: (trials,) natural log-likelihood ratios.
        positive: (trials,) whether each trial should be accepted.
    """
    return np.logaddexp(0, np.where(positive, -llrs, llrs)) / np.log(2)


def cllr(llrs: np.ndarray, positive: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Return the Cllr in bits: 0 is perfect, and LLRs of 0 give 1.

    Args:
        llrs: (trials,) natural log-likelihood ratios.
        positive: (trials,) whether each trial should be accepted.
        weights: (trials,) weight of each trial; None gives each the weight 1.
    """
    return mean_loss(llr_losses(llrs, positive), positive, weights)


def mean_loss(losses: np.ndarray, positive: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Return the Cllr in bits for given losses: the average of the mean over positives and the mean
    over negatives.

    Args:
        losses: (trials,) losses in bits.
        positive: (trials,) whether each trial should be accepted.
        weights: (trials,) weight of each trial; None gives each the weight 1.

    Raises:
        SasvError: there are no positives or no negatives.
    """
    weights = np.ones(len(losses)) if weights is None else weights
    sides = [weights * positive, weights * ~positive]
    if not all(side.any() for side in sides):
        raise SasvError("a Cllr needs at least one positive and one negative trial")
    return float(sum((losses * side).sum() / side.sum() for side in sides) / 2)


def min_cllr(miss: np.ndarray, alarms: np.ndarray) -> float:
    """Return the minimum Cllr in bits over all monotone calibrations.

    Args:
        miss: (points,) share of positives below each threshold, increasing from 0 to 1.
        alarms: (points,) share of negatives at or above each threshold, decreasing from 1 to 0.
    """
    x, y = hull(1 - alarms, miss)
    negative, positive = np.diff(x), np.diff(y)  # share of each class in a segment of constant LLR
    both = (negative > 0) & (positive > 0)
    negative = negative[both]
    positive = positive[both]
    ratio = np.log(positive) - np.log(negative)
    loss = positive * np.logaddexp(0, -ratio) + negative * np.logaddexp(0, ratio)
    return float(loss.sum() / (2 * np.log(2)))


def hull(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower convex hull of points (points,) whose x and y both increase.

    A point on or above the line between its neighbours is not a corner. All such points are removed
    at once, repeatedly; when few are removed at a time, a single pass over the rest finishes.
    """
    while len(x) > 2:
        dx = np.diff(x)
        dy = np.diff(y)
        keep = np.concatenate(([True], dx[:-1] * dy[1:] > dx[1:] * dy[:-1], [True]))
        left = int(keep.sum())
        if left == len(x):
            break
        few = left > 0.9 * len(x)
        x = x[keep]
        y = y[keep]
        if few:
            return _walk(x, y)
    return x, y


def _walk(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    corners: list[tuple[float, float]] = []
    for point in zip(x.tolist(), y.tolist()):
        while len(corners) > 1:
            (x0, y0), (x1, y1) = corners[-2:]
            if (x1 - x0) * (point[1] - y1) > (point[0] - x1) * (y1 - y0):
                break
            corners.pop()
        corners.append(point)
    found = np.array(corners)
    return found[:, 0], found[:, 1]
