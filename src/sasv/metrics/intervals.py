"""Bootstrap confidence intervals of any metric, and a paired test of two systems on the same
trials.

A resample is a weight for each trial, so that nothing is sorted again. Source: Efron and
Tibshirani, "An introduction to the bootstrap", 1993 (percentile intervals); Ferrer and Riera,
"Confidence intervals for evaluation in machine learning", 2022 (resampling speakers, whose trials
are dependent).
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from sasv.core.errors import SasvError
from sasv.metrics.summary import Values

Interval = tuple[float, float]
Samples = dict[str, list[float | None]]
"""Metric -> its value in each resample."""

REPEATS = 1000
LEVEL = 0.95


class Measurable(Protocol):
    """What can be measured of trials that count more than once: see ``Measure``."""

    @property
    def labels(self) -> np.ndarray:
        """(trials,) 0 target, 1 nontarget, 2 spoof."""

    def __call__(self, weights: np.ndarray | None = None) -> Values:
        """Return the metrics; each trial counts ``weights`` times (trials,)."""


def resamples(
    labels: np.ndarray, speakers: np.ndarray | None, repeats: int, seed: int
) -> Iterator[np.ndarray]:
    """Yield the weight of each trial, (trials,), in each resample.

    Args:
        labels: (trials,) 0 target, 1 nontarget, 2 spoof. If trials are resampled, the size of each
            class does not change.
        speakers: (trials,) index of the claimed speaker; None resamples trials.
        repeats: number of resamples.
        seed: seed of the resampling.
    """
    rng = np.random.default_rng(seed)
    if speakers is not None:
        _, index = np.unique(speakers, return_inverse=True)
        count = int(index.max()) + 1
        for _ in range(repeats):
            yield np.bincount(rng.integers(count, size=count), minlength=count)[index]
        return
    rows = [np.flatnonzero(labels == kind) for kind in np.unique(labels)]
    for _ in range(repeats):
        weights = np.zeros(len(labels), np.int64)
        for mine in rows:
            weights[mine] = np.bincount(
                rng.integers(len(mine), size=len(mine)), minlength=len(mine)
            )
        yield weights


def intervals(
    measure: Measurable,
    speakers: np.ndarray | None = None,
    repeats: int = REPEATS,
    level: float = LEVEL,
    seed: int = 0,
) -> dict[str, Interval | None]:
    """Return the percentile interval of each metric.

    Args:
        measure: the trials, and the metrics to compute.
        speakers: (trials,) index of the claimed speaker, resampled with replacement; None resamples
            trials.
        repeats: number of resamples.
        level: confidence level, in (0, 1).
        seed: seed of the resampling.

    Returns:
        metric -> (low, high), or None if the metric is undefined in at least half of the resamples.
    """
    return percentiles(samples_of([measure], speakers, repeats, seed)[0], repeats, level)


class Difference(NamedTuple):
    """A metric of two systems on the same trials.

    Attributes:
        first, second: the metric of each system.
        interval: confidence interval of second - first, over resamples with the same trials for
            both.
        p: two-sided bootstrap p-value of the hypothesis that there is no difference; at least
            1 / (repeats + 1).
    """

    first: float
    second: float
    interval: Interval
    p: float


def paired_test(
    first: Measurable,
    second: Measurable,
    speakers: np.ndarray | None = None,
    repeats: int = REPEATS,
    level: float = LEVEL,
    seed: int = 0,
) -> dict[str, Difference]:
    """Compare two systems on the same trials in the same order, metric by metric.

    Args:
        first: the trials with the scores of the first system, and the metrics to compute.
        second: the same for the second system.
        speakers: (trials,) index of the claimed speaker; None resamples trials.
        repeats: number of resamples.
        level: confidence level, in (0, 1).
        seed: seed of the resampling.

    Returns:
        metric -> difference.

    Raises:
        SasvError: the trials differ.
    """
    if len(first.labels) != len(second.labels) or (first.labels != second.labels).any():
        raise SasvError("a paired test needs the same trials for both systems, in the same order")
    one, other = samples_of([first, second], speakers, repeats, seed)
    return differences(first(), second(), one, other, repeats, level)


def differences(
    first: Values,
    second: Values,
    one: Samples,
    other: Samples,
    repeats: int = REPEATS,
    level: float = LEVEL,
) -> dict[str, Difference]:
    """Return the differences of two systems, metric by metric.

    Args:
        first: metrics of the first system.
        second: metrics of the second system.
        one: those of the first in the resamples (see samples_of).
        other: those of the second in the same resamples.
        repeats: number of resamples.
        level: confidence level, in (0, 1).
    """
    result = {}
    for name in first:
        low = first[name]
        high = second.get(name)
        pairs = list(zip(one.get(name, []), other.get(name, [])))
        changes = [b - a for a, b in pairs if a is not None and b is not None]
        if low is None or high is None or len(changes) <= repeats // 2:
            continue
        edges = np.percentile(changes, [50 * (1 - level), 50 * (1 + level)]).tolist()
        sides = [sum(change <= 0 for change in changes), sum(change >= 0 for change in changes)]
        p = min(1.0, 2 * (min(sides) + 1) / (len(changes) + 1))
        result[name] = Difference(low, high, (edges[0], edges[1]), p)
    return result


def samples_of(
    measures: Sequence[Measurable], speakers: np.ndarray | None, repeats: int, seed: int
) -> list[Samples]:
    """Return, for each measure, metric -> its value in each resample. Resamples without targets are
    left out.
    """
    found: list[Samples] = [{} for _ in measures]
    for weights in resamples(measures[0].labels, speakers, repeats, seed):
        try:
            values: list[Values] = [measure(weights) for measure in measures]
        except SasvError:
            continue
        for into, named in zip(found, values):
            for name, value in named.items():
                into.setdefault(name, []).append(value)
    return found


def percentiles(
    samples: Samples, repeats: int = REPEATS, level: float = LEVEL
) -> dict[str, Interval | None]:
    """Return the percentile interval of each metric, or None where half of the resamples or more do
    not have it.

    Args:
        samples: the metrics in the resamples (see samples_of).
        repeats: number of resamples.
        level: confidence level, in (0, 1).
    """
    result: dict[str, Interval | None] = {}
    for name, values in samples.items():
        have = [value for value in values if value is not None]
        edges = (
            np.percentile(have, [50 * (1 - level), 50 * (1 + level)]).tolist()
            if len(have) > repeats // 2
            else None
        )
        result[name] = None if edges is None else (edges[0], edges[1])
    return result
