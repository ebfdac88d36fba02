"""The four kinds of table and what makes each valid. Columns: docs/tables.md."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from sasv.core.errors import TableError, some
from sasv.tables.table import Table

NONE = "-"
"""Written where a cell has nothing to say (the attack of a bona fide utterance)."""

UTTERANCE_LABELS = ("bonafide", "spoof")
TRIAL_LABELS = ("target", "nontarget", "spoof")
BONA_FIDE = "bonafide"
"""Label of what a countermeasure should accept; a score file of one has it in place of target and nontarget."""


class _Kind:
    """A validated view of a table."""

    def __init__(self, table: Table):
        self.table = table

    def __len__(self) -> int:
        return len(self.table)

    def save(self, path: str | Path) -> None:
        """Write as TSV, atomically."""
        self.table.save(path)

    @cached_property
    def attacks(self) -> tuple[np.ndarray, list[str]]:
        """(attack index of each row, attack names); all NONE where the table has no such column."""
        if "attack" not in self.table.columns:
            return np.zeros(len(self), np.int32), [NONE]
        return self.table.codes("attack")

    @property
    def attack_texts(self) -> list[str]:
        """Attack of each row."""
        codes, names = self.attacks
        return [names[code] for code in codes]


class Utterances(_Kind):
    """Audio files: columns utterance, path, speaker, and where known label, attack, seconds and any others.

    A relative path starts from the folder of the table.
    """

    def __init__(self, table: Table):
        super().__init__(table)
        table.require("utterance", "path", "speaker")
        _unique(table, "utterance")
        _no_empty(table, "path", "speaker")
        if "label" in table.columns:
            _known(table, "label", UTTERANCE_LABELS)

    @cached_property
    def ids(self) -> list[str]:
        """Utterance names, one per row."""
        return self.table.texts("utterance")

    @cached_property
    def rows(self) -> dict[str, int]:
        """Row of each utterance name."""
        return {name: row for row, name in enumerate(self.ids)}

    def path(self, row: int) -> str:
        """Audio file of a row."""
        return os.path.join(self.folder, self.table.text("path", row))

    @property
    def paths(self) -> list[str]:
        """Audio files of all rows."""
        return [os.path.join(self.folder, path) for path in self.table.texts("path")]

    @cached_property
    def folder(self) -> str:
        """Folder from which relative paths start."""
        return os.path.dirname(self.table.name)

    @cached_property
    def speakers(self) -> tuple[np.ndarray, list[str]]:
        """(speaker index of each row, speaker names)."""
        return self.table.codes("speaker")

    @cached_property
    def spoofed(self) -> np.ndarray:
        """Boolean per row; all False where the table has no label column."""
        if "label" not in self.table.columns:
            return np.zeros(len(self), bool)
        codes, names = self.table.codes("label")
        return np.array([name == "spoof" for name in names], bool)[codes]

    @cached_property
    def seconds(self) -> np.ndarray | None:
        """Length of each utterance, or None where the table does not say."""
        if "seconds" not in self.table.columns:
            return None
        values = self.table.numbers("seconds")
        if len(values) and values.min() < 0:
            raise self.table.bad_cell("seconds", int(values.argmin()), "is negative")
        return values

    def take(self, rows: np.ndarray) -> "Utterances":
        """Return some rows."""
        return Utterances(self.table.take(rows))

    def where(self, condition: str) -> "Utterances":
        """Return the rows that fulfil ``column=value`` or ``column=value1,value2``; an empty condition keeps all.

        Several conditions, all to be fulfilled, are separated by ``;``.
        """
        chosen = self
        for one in filter(None, map(str.strip, condition.split(";"))):
            chosen = chosen._where(one)
        return chosen

    def _where(self, condition: str) -> "Utterances":
        column, _, wanted = condition.partition("=")
        if not wanted:
            raise TableError(f"'{condition}': write a condition as column=value, for instance split=train")
        self.table.require(column)
        codes, names = self.table.codes(column)
        keep = np.isin(codes, [names.index(value) for value in wanted.split(",") if value in names])
        if not keep.any():
            raise TableError(f"{self.table.name}: no row has {condition}; values of {column}: {some(names, 10)}")
        return self.take(keep)


class Enrolments(_Kind):
    """Claimed speakers: columns speaker and utterances (comma-separated names)."""

    def __init__(self, table: Table):
        super().__init__(table)
        table.require("speaker", "utterances")
        _unique(table, "speaker")
        _no_empty(table, "utterances")

    @cached_property
    def speakers(self) -> list[str]:
        """Enrolled speakers, one per row."""
        return self.table.texts("speaker")

    @cached_property
    def utterances(self) -> list[list[str]]:
        """Enrolment utterances of each row."""
        return [cell.split(",") for cell in self.table.texts("utterances")]


class Trials(_Kind):
    """Claims to decide: columns speaker, utterance, label (target, nontarget, spoof) and attack (optional)."""

    known: tuple[str, ...] = TRIAL_LABELS

    def __init__(self, table: Table):
        super().__init__(table)
        table.require("speaker", "utterance", "label")
        _no_empty(table, "speaker", "utterance")
        _known(table, "label", self.known)

    @cached_property
    def speakers(self) -> tuple[np.ndarray, list[str]]:
        """(index per trial, claimed speaker names)."""
        return self.table.codes("speaker")

    @cached_property
    def utterances(self) -> tuple[np.ndarray, list[str]]:
        """(index per trial, test utterance names)."""
        return self.table.codes("utterance")

    @cached_property
    def labels(self) -> np.ndarray:
        """0 target, 1 nontarget, 2 spoof."""
        codes, names = self.table.codes("label")
        kinds = {name: index for index, name in enumerate(TRIAL_LABELS)} | {BONA_FIDE: 0}
        return np.array([kinds[name] for name in names], np.int8)[codes]

    def counts(self) -> dict[str, int]:
        """Number of trials of each label."""
        return {name: int((self.labels == index).sum()) for index, name in enumerate(TRIAL_LABELS)}


class Scores(Trials):
    """Trials with a score column; the higher, the more the claim is believed.

    Further columns: ``asv_score`` and ``cm_score`` of the parts of a tandem, and whatever describes the trials (codec,
    gender). The scores of a countermeasure have the labels bonafide and spoof.
    """

    known = (*TRIAL_LABELS, BONA_FIDE)

    def __init__(self, table: Table):
        super().__init__(table)
        table.require("score")
        if not len(table):
            raise TableError(f"{table.name}: no trials in it")

    @cached_property
    def values(self) -> np.ndarray:
        """Scores as float64."""
        return self.table.numbers("score")

    @property
    def task(self) -> str:
        """``cm`` for the scores of a countermeasure, else ``sasv``."""
        return "cm" if BONA_FIDE in self.table.codes("label")[1] else "sasv"

    def numbers(self, column: str) -> np.ndarray | None:
        """Return a column as float64, None where there is none."""
        return self.table.numbers(column) if column in self.table.columns else None

    def check_unique(self) -> None:
        """TableError where a trial stands twice with different scores or labels; the same twice counts twice."""
        (speakers, _), (utterances, names) = self.speakers, self.utterances
        if set(names) == {NONE} or self.table.text("speaker", 0) == NONE == self.table.text("utterance", 0):
            return
        pairs = speakers.astype(np.int64) * len(names) + utterances
        order = np.argsort(pairs, kind="stable")
        same = pairs[order[1:]] == pairs[order[:-1]]
        for at in np.flatnonzero(same).tolist():
            one, other = int(order[at]), int(order[at + 1])
            if self.values[one] != self.values[other] or self.labels[one] != self.labels[other]:
                raise self.table.bad_cell(
                    "utterance", other, f"stands twice for one speaker (first in line {self.table.line(one)}), with "
                    "another score or label; keep one",
                )  # fmt: skip


@dataclass(frozen=True)
class TrialRows:
    """Trials as numbers: the row of the enrolment and of the test utterance of each."""

    enrolment: np.ndarray
    utterance: np.ndarray


def load_utterances(path: str | Path, where: str = "") -> Utterances:
    """Read and validate an utterance table; ``where`` keeps the rows that fulfil ``column=value``."""
    return Utterances(Table.load(path)).where(where)


def load_enrolments(path: str | Path) -> Enrolments:
    """Read and validate an enrolment table."""
    return Enrolments(Table.load(path))


def load_trials(path: str | Path) -> Trials:
    """Read and validate a trial table."""
    return Trials(Table.load(path))


def load_scores(path: str | Path) -> Scores:
    """Read and validate a score file."""
    return Scores(Table.load(path))


def save_scores(
    path: str | Path, trials: Trials, scores: np.ndarray, extras: Mapping[str, Sequence[str]] | None = None
) -> Scores:
    """Write a score file (speaker, utterance, label, attack, score, and further columns) and return it."""
    cells: dict[str, Sequence[str]] = {name: trials.table.texts(name) for name in ("speaker", "utterance", "label")}
    cells["attack"] = trials.attack_texts
    cells["score"] = [f"{score:.9g}" for score in scores]
    others = [name for name in trials.table.columns if name not in cells]
    cells |= {name: trials.table.texts(name) for name in others} | dict(extras or {})
    table = Table.build(cells, str(path))
    table.save(path)
    return Scores(table)


def check_trials(trials: Trials, enrolments: Enrolments, known: Sequence[str] | dict[str, int]) -> TrialRows:
    """Join trials with enrolments and known utterances.

    Raises:
        TableError: a trial names a speaker who is not enrolled or an unknown utterance, or an enrolment does.
    """
    rows = known if isinstance(known, dict) else {name: row for row, name in enumerate(known)}
    enrolled = {name: row for row, name in enumerate(enrolments.speakers)}
    _all_known(trials.table.name, "speaker", trials.speakers[1], enrolled, enrolments.table.name)
    _all_known(trials.table.name, "utterance", trials.utterances[1], rows, "the utterance table")
    wanted = [name for names in enrolments.utterances for name in names]
    _all_known(enrolments.table.name, "utterance", wanted, rows, "the utterance table")
    speaker_codes, speaker_names = trials.speakers
    utterance_codes, utterance_names = trials.utterances
    return TrialRows(
        np.array([enrolled[name] for name in speaker_names], np.int64)[speaker_codes],
        np.array([rows[name] for name in utterance_names], np.int64)[utterance_codes],
    )


def needed_names(enrolments: Enrolments, trials: Trials) -> set[str]:
    """Return the names of all utterances that a protocol enrols or tests."""
    return set(trials.utterances[1]) | {name for names in enrolments.utterances for name in names}


def needed_utterances(everything: Utterances, enrolments: Enrolments, trials: Trials) -> Utterances:
    """Return the rows that a protocol needs, in the order of the table. TableError as check_trials."""
    check_trials(trials, enrolments, everything.rows)
    return everything.take(np.array(sorted(everything.rows[name] for name in needed_names(enrolments, trials))))


def _all_known(table: str, what: str, names: Sequence[str], known: dict[str, int], where: str) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise TableError(f"{table}: {what} {some(unknown)} is not in {where}; add it there or drop its rows")


def _unique(table: Table, column: str) -> None:
    codes, first = table.groups(column)
    if len(first) < len(codes):
        row = int(np.setdiff1d(np.arange(len(codes)), first)[0])
        before = int(first[codes[row]])
        raise table.bad_cell(column, row, f"stands twice (first in line {table.line(before)}); names must be unique")
    _no_empty(table, column)


def _no_empty(table: Table, *columns: str) -> None:
    for column in columns:
        at = table.columns.index(column)
        empty = np.flatnonzero(table.starts[at] == table.ends[at])
        if len(empty):
            raise TableError(f"{table.name}, line {table.line(int(empty[0]))}: the {column} is empty; fill it in")


def _known(table: Table, column: str, wanted: Sequence[str]) -> None:
    codes, names = table.codes(column)
    for code, name in enumerate(names):
        if name not in wanted:
            row = int(np.flatnonzero(codes == code)[0])
            raise table.bad_cell(column, row, f"is unknown; use one of: {', '.join(wanted)}")
