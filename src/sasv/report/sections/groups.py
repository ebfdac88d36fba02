"""Metrics for each value of a column (attack, codec, gender)."""

from collections.abc import Sequence

from sasv.report.page import Cell, Section
from sasv.report.sections.metrics import interval
from sasv.report.systems import System
from sasv.report.text import is_metric, title


def groups(systems: Sequence[System], column: str) -> list[Section]:
    """Return a table a metric of the values of a column, with intervals, systems side by side."""
    found = {one.name: one.metrics["groups"].get(column, {}) for one in systems}
    parts = {value: part for values in found.values() for value, part in values.items()}
    wanted = [name for name in next(iter(parts.values()), {}) if is_metric(name)]
    note = "Each value has its own trials."
    if column == "attack":  # targets and nontargets are the same of every attack
        wanted = [name for name in wanted if name in ("spf_eer", "cm_eer") or "dcf" in name]
        note = (
            "The spoofs of each attack, whose number is given, are compared with all bona fide "
            "trials."
        )
    sections = []
    for name in wanted:
        rows = []
        for value, part in parts.items():
            count = (
                part["spoofs"]
                if column == "attack"
                else part["targets"] + part["nontargets"] + part["spoofs"]
            )
            cells = [interval(found[one.name].get(value, {}), name) for one in systems]
            rows.append([Cell(value), Cell(f"{count:,}"), *cells])
        header = [column, "trials", *(one.name for one in systems)]
        sections.append(Section(f"{title(name)} by {column}", note, header, rows))
    return sections
