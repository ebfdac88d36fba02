"""Paired tests of all other systems against the first."""

from collections.abc import Mapping, Sequence
from typing import Any

from sasv.report.page import Cell, Section
from sasv.report.systems import System
from sasv.report.text import show, title

SIGNIFICANT = 0.05


def differences(systems: Sequence[System], resample: str) -> Section:
    """Return the paired tests against the first system.

    Args:
        systems: the first is the baseline.
        resample: what was resampled, speakers or trials.
    """
    others = systems[1:]
    names = list(
        dict.fromkeys(name for one in others for name in one.tests if not name.endswith("_nearest"))
    )
    rows = []
    for name in names:
        cells = [
            difference(name, one.tests[name]) if name in one.tests else Cell("-") for one in others
        ]
        rows.append([Cell(title(name)), *cells])
    note = (
        f"Difference from {systems[0].name} on the same resamples ({resample}). A difference is "
        f"called better or worse if p is below {SIGNIFICANT}, not corrected for the number of "
        "tests; otherwise, no difference was shown."
    )
    return Section("Paired tests", note, ["metric", *(one.name for one in others)], rows)


def difference(name: str, test: Mapping[str, Any]) -> Cell:
    """Return the difference of a metric with its interval, its p-value and what follows from
    them.
    """
    change = test["second"] - test["first"]
    verdict = ""
    if test["p"] < SIGNIFICANT:
        verdict = " better" if change < 0 else " worse"
    sign = "+" if change > 0 else ""
    low, high = (show(name, edge).rstrip("%") for edge in test["interval"])
    small = f"({low} to {high}), p = {test['p']:.3f}"
    return Cell(f"{sign}{show(name, change)}{verdict}", verdict == " better", small=small)
