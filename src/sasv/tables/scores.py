"""Score tables: trials with one score each."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from sasv.core.errors import TableError
from sasv.tables.labels import BONA_FIDE, NONE, NONTARGET, TARGET, TRIAL_LABELS
from sasv.tables.table import Table
from sasv.tables.trials import Trials


class Scores(Trials):
    """Trials with a score each; a higher score supports the claim.

    Optional columns are ``asv_score`` and ``cm_score``, the scores of the two systems of a tandem,
    and any properties of the trials (codec, gender). Scores of a countermeasure have the labels
    bonafide and spoof.
    """

    known = (*TRIAL_LABELS, BONA_FIDE)

    def __init__(self, table: Table):
        super().__init__(table)
        table.require("score")
        if not len(table):
            raise TableError(f"{table.name}: contains no trials")
        names = table.codes("label")[1]
        verification = [name for name in names if name in (TARGET, NONTARGET)]
        if BONA_FIDE in names and verification:
            raise TableError(
                f"{table.name}: has trials with the label bonafide (genuine), of a countermeasure, "
                f"beside trials with the label {verification[0]}, of speaker verification; if "
                "genuine means target there, say so with --labels genuine=target"
            )

    @cached_property
    def values(self) -> np.ndarray:
        """Scores as float64, (trials,)."""
        return self.table.numbers("score")

    @property
    def task(self) -> str:
        """``cm`` for the scores of a countermeasure, otherwise ``sasv``."""
        return "cm" if BONA_FIDE in self.table.codes("label")[1] else "sasv"

    def numbers(self, column: str) -> np.ndarray | None:
        """Return a column as float64 (trials,), None if the table does not have it."""
        return self.table.numbers(column) if column in self.table.columns else None

    def check_unique(self) -> None:
        """Check for contradictory rows. A trial may be repeated and then counts repeatedly.

        Raises:
            TableError: a trial appears twice with different scores or labels.
        """
        speakers = self.speakers[0]
        utterances, first = self.table.groups("utterance")  # without their names, which take long
        nameless = self.table.text("utterance", 0) == NONE
        if nameless and (len(first) == 1 or self.table.text("speaker", 0) == NONE):
            return
        pairs = speakers.astype(np.int64) * len(first) + utterances
        ordered = np.sort(pairs)
        if not (ordered[1:] == ordered[:-1]).any():
            return  # as nearly always; to find the rows takes much longer than to sort
        order = np.argsort(pairs, kind="stable")
        same = pairs[order[1:]] == pairs[order[:-1]]
        for at in np.flatnonzero(same).tolist():
            one = int(order[at])
            other = int(order[at + 1])
            if self.values[one] != self.values[other] or self.labels[one] != self.labels[other]:
                raise self.table.bad_cell(
                    "utterance",
                    other,
                    f"appears twice for one speaker (first in line {self.table.line(one)}), with "
                    "another score or label; keep one",
                )


def load_scores(path: str | Path) -> Scores:
    """Read and validate a score file."""
    return Scores(Table.load(path))


def save_scores(
    path: str | Path,
    trials: Trials,
    scores: np.ndarray,
    extras: Mapping[str, Sequence[str]] | None = None,
) -> Scores:
    """Write a score file with the columns speaker, utterance, label, attack, score, and ``extras``.

    Args:
        path: the file.
        trials: the trials.
        scores: (trials,).
        extras: further columns, each with one cell per trial.

    Returns:
        The scores as a table.
    """
    cells: dict[str, Sequence[str]] = {
        name: trials.table.texts(name) for name in ("speaker", "utterance", "label")
    }
    cells["attack"] = trials.attack_texts
    cells["score"] = [f"{score:.9g}" for score in scores]
    others = [name for name in trials.table.columns if name not in cells]
    cells |= {name: trials.table.texts(name) for name in others} | dict(extras or {})
    table = Table.build(cells, str(path))
    table.save(path)
    return Scores(table)
