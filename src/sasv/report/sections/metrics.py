"""All metrics of all systems, with intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

from sasv.report.page import Cell, Section
from sasv.report.systems import System
from sasv.report.text import is_metric, show, title


def summary(systems: Sequence[System]) -> Section:
    """Return the table of all metrics with intervals, a column a system, the best in bold."""
    names = list(dict.fromkeys(name for one in systems for name in one.metrics if is_metric(name)))
    names = [name for name in names if not name.endswith("_nearest")]
    rows = []
    for name in names:
        values = [one.metrics.get(name) for one in systems]
        if all(value is None for value in values):
            continue
        best = min(value for value in values if value is not None)
        cells = [
            interval(one.metrics, name, len(systems) > 1 and one.metrics.get(name) == best)
            for one in systems
        ]
        rows.append([Cell(title(name)), *cells])
    note = (
        "Lower is better for every metric. Small print: 95 % bootstrap intervals. In square "
        "brackets: the cost model."
    )
    return Section("Metrics", note, ["metric", *(one.name for one in systems)], rows)


def interval(metrics: Mapping[str, Any], name: str, best: bool = False) -> Cell:
    """Return a value with its interval."""
    span = (metrics.get("intervals") or {}).get(name)
    shown = (
        f"({show(name, span[0]).rstrip('%')} to {show(name, span[1]).rstrip('%')})" if span else ""
    )
    return Cell(show(name, metrics.get(name)), best, small=shown)
