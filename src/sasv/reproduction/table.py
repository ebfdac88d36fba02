"""The table of results that a plan produces, next to the published results."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sasv.core.errors import MissingExtra
from sasv.core.files import read_json, write_json
from sasv.report.page import Cell, Section, write_report
from sasv.reproduction.plans import Planner
from sasv.reproduction.rows import Row
from sasv.weights import find

logger = logging.getLogger("sasv")


@dataclass(frozen=True)
class Result:
    """A cell of the table: our metrics next to the published SASV-EER."""

    row: int
    encoder: str
    train_set: str
    model: Path
    metrics: dict[str, Any]
    published: float | None


class Reproduction(list[Result]):
    """The cells of the table, and a text: the table, or the plan of a dry run."""

    def __init__(self, cells: Iterable[Result] = (), text: str = ""):
        super().__init__(cells)
        self.text = text


def add_cells(
    planner: Planner, rows: Sequence[Row], encoders: Sequence[str], train_sets: Sequence[str]
) -> list[tuple[Row, str, str]]:
    """Add the steps of all cells of the table to a plan; return the cells: row, encoder, training
    set.
    """
    cells: list[tuple[Row, str, str]] = []
    for encoder in encoders:
        for row in rows:
            for train_set in train_sets:
                if not row.needs_train_set() and train_set != train_sets[-1]:
                    continue  # the model does not depend on the training set
                planner.add(encoder, row.stages(train_set))
                cells.append((row, encoder, train_set))
    return cells


def results_of(planner: Planner, cells: Sequence[tuple[Row, str, str]]) -> list[Result]:
    """Return the results of the cells of the table, whose steps must be done."""
    results = []
    for row, encoder, train_set in cells:
        stages = row.stages(train_set)
        folder = planner.evaluation(encoder, stages)
        metrics = read_json(folder / "metrics.json", {"sasv_eer": (float, int, type(None))}) | {
            "folder": str(folder)
        }
        published = find(row.number, encoder, train_set if row.needs_train_set() else "train+dev")
        value = published.published if published else None
        results.append(
            Result(row.number, encoder, train_set, planner.model(encoder, stages), metrics, value)
        )
    return results


def results_table(results: Sequence[Result], rows: Sequence[Row]) -> Section:
    """Return the table: a line a row, for each encoder and training set our figure, the published
    one, and how they differ."""
    columns = list(dict.fromkeys((result.encoder, result.train_set) for result in results))
    found = {(result.row, result.encoder, result.train_set): result for result in results}
    header = ["row", "Stage 1", "Stage 2", "Stage 3"]
    for encoder, train_set in columns:
        header += [f"{encoder} {train_set}", "published", "difference"]
    lines = []
    for row in rows:
        cells = [Cell(str(row.number)), *map(Cell, row.words())]
        for encoder, train_set in columns:
            cells += _figures(found.get((row.number, encoder, train_set)))
        lines.append(cells)
    note = "Small print: 95 % intervals from resampling speakers."
    return Section("SASV-EER (%)", note, header, lines)


def _figures(result: Result | None) -> list[Cell]:
    """Return our value, the published one, and their difference."""
    if result is None:
        return [Cell("-"), Cell("-"), Cell("-")]
    value = result.metrics["sasv_eer"]
    span = (result.metrics.get("intervals") or {}).get("sasv_eer")
    ours = Cell(f"{value:.2f}", small=f"({span[0]:.2f} to {span[1]:.2f})" if span else "")
    if result.published is None:
        return [ours, Cell("-"), Cell("-")]
    return [ours, Cell(f"{result.published:.2f}"), Cell(f"{value - result.published:+.2f}")]


def write_table(results: Sequence[Result], table: Section, about: str, out: Path) -> None:
    """Write the table as JSON and as a page below ``out``. A page that lacks its image is no
    error.
    """
    write_json(
        out / "table.json", [vars(result) | {"model": str(result.model)} for result in results]
    )
    try:
        write_report("Rows of the published table", about, [table], out / "table")
    except MissingExtra as error:
        logger.info(f"the table has no image: {error}")
    logger.info(f"table: {out / 'table' / 'report.html'}")
