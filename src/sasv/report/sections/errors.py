"""The errors that lie farthest from the threshold."""

from typing import Any

import numpy as np

from sasv.report.page import Cell, Section, table_rows
from sasv.report.systems import System
from sasv.tables import Utterances

ERRORS = ("rejected target", "accepted nontarget", "accepted spoof")
"""What an error on a trial of each label is called."""


def worst(system: System, table: Utterances | None, most: int) -> Section:
    """Return the errors that lie farthest from the threshold, with their audio where an utterance
    table is given.

    Args:
        system: its trials.
        table: utterance table with the audio of the tested utterances.
        most: errors of each kind.
    """
    scores = system.measure.scores
    limit = system.threshold
    if limit is None:
        limit = float(np.median(scores))
    trials = system.scores.table
    attacks, names = system.scores.attacks
    rows: list[list[Any]] = []
    for label, error in enumerate(ERRORS):
        if system.measure.task == "cm" and label == 0:
            error = "rejected bona fide"
        for row in farthest(system, label, limit)[:most].tolist():
            name = trials.text("utterance", row)
            speaker = trials.text("speaker", row)
            audio = table.path(table.rows[name]) if table is not None and name in table.rows else ""
            shown = Cell(name, audio=audio)
            rows.append([error, f"{scores[row]:.4f}", speaker, shown, names[attacks[row]]])
    note = f"Errors at the threshold {limit:.4f}, those farthest from it first."
    if not rows:
        note += " There are none."
    header = ["error", "score", "claimed speaker", "utterance", "attack"]
    return Section(f"Worst errors of {system.name}", note, header if rows else (), table_rows(rows))


def farthest(system: System, label: int, limit: float) -> np.ndarray:
    """Return the rows of the wrongly decided trials of a label, the farthest from the threshold
    first.
    """
    scores = system.measure.scores
    wrong = scores < limit if label == 0 else scores >= limit
    rows = np.flatnonzero((system.measure.labels == label) & wrong)
    order = np.argsort(scores[rows] if label == 0 else -scores[rows], kind="stable")
    found: np.ndarray = rows[order]
    return found
