"""Verdicts of systems that distinguish other speakers from spoofs."""

from collections.abc import Sequence

from sasv.report.page import Cell, Section
from sasv.report.systems import System


def outcomes(systems: Sequence[System]) -> list[Section]:
    """Return for each system with verdicts what became of each kind of trial, and what it costs."""
    sections = []
    for one in systems:
        found = one.metrics.get("outcomes")
        if not found:
            continue
        model, costs = next(iter(found["costs"].items()))
        names = list(dict.fromkeys(name for row in found["counts"].values() for name in row))
        rows = [
            [
                Cell(kind),
                *(
                    Cell(str(row.get(name, 0)), small=cost_text(costs[kind].get(name, 0.0)))
                    for name in names
                ),
                Cell(f"{sum(costs[kind].values()):.4f}"),
            ]
            for kind, row in found["counts"].items()
        ]
        note = (
            f"Number of trials of each kind by verdict. Small print: their normalised cost for "
            f"{model}; a target that is not accepted is a miss, whatever the reason."
        )
        header = ["trials", *(name.replace("_", " ") for name in names), "cost"]
        title = "Outcomes" if len(systems) == 1 else f"Outcomes of {one.name}"
        sections.append(Section(title, note, header, rows))
    return sections


def cost_text(cost: float) -> str:
    """Return a cost in brackets; nothing if there is none."""
    return f"({cost:.4f})" if cost else ""
