"""Ranks the error rates of a system: its weakest points first."""

from typing import NamedTuple

from sasv.metrics.intervals import Interval
from sasv.stress.conditions import CLEAN
from sasv.stress.measure import FEWEST_SPEAKERS, MISS, Claims, Result, eer_name, rate_name


class Point(NamedTuple):
    """An error rate under a condition.

    Attributes:
        kind: ``miss``, ``others``, or an attack.
        condition: name of the condition.
        rate: error rate at the threshold, in percent.
        interval: interval of the rate.
        eer: equal error rate in percent; None for ``miss``.
        eer_interval: interval of the equal error rate.
        clean: the rate without a condition.
    """

    kind: str
    condition: str
    rate: float
    interval: Interval | None
    eer: float | None
    eer_interval: Interval | None
    clean: float | None

    @property
    def rate_name(self) -> str:
        """Name of the rate in ``Rates``."""
        return rate_name(self.kind)


def weakest(result: Result, claims: Claims) -> list[Point]:
    """Return the error rates of a system under each condition, the highest first. Kinds of claims
    with few speakers come after the others.

    Args:
        result: the results of the system.
        claims: all claims.
    """
    kinds = claims.kinds
    few = {kind: claims.speakers_of(kind) < FEWEST_SPEAKERS for kind in (MISS, *kinds)}
    points = []
    clean = result.measured[CLEAN].values
    for kind in (MISS, *kinds):
        for condition, found in result.measured.items():
            rate = found.values.get(rate_name(kind))
            if rate is None:
                continue
            points.append(
                Point(
                    kind,
                    condition,
                    rate,
                    found.intervals.get(rate_name(kind)),
                    found.values.get(eer_name(kind)),
                    found.intervals.get(eer_name(kind)),
                    clean.get(rate_name(kind)),
                )
            )
    return sorted(
        points,
        key=lambda one: (few[one.kind], -one.rate, -(one.eer or 0.0), one.kind, one.condition),
    )


def weakest_of_each(result: Result, claims: Claims) -> list[Point]:
    """Return the condition in which each kind of error is most frequent, the weakest first."""
    found: dict[str, Point] = {}
    for point in weakest(result, claims):
        found.setdefault(point.kind, point)
    return list(found.values())
