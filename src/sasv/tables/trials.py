"""Enrolment tables and trial tables."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np

from sasv.core.errors import TableError
from sasv.tables.labels import BONA_FIDE, TRIAL_LABELS
from sasv.tables.table import Table
from sasv.tables.view import TableView, check_filled, check_known, check_unique

Speaker = TypeVar("Speaker", str, int)
Recording = TypeVar("Recording")


class Enrolments(TableView):
    """Enrolled speakers, with the columns speaker and utterances (comma-separated names)."""

    def __init__(self, table: Table):
        super().__init__(table)
        table.require("speaker", "utterances")
        check_unique(table, "speaker")
        check_filled(table, "utterances")
        for row, names in enumerate(self.utterances):
            if "" in names:
                raise TableError(
                    f"{table.name}, line {table.line(row)}: the list of utterances has a comma "
                    "without a name beside it; remove the comma"
                )

    @cached_property
    def speakers(self) -> list[str]:
        """Name of the enrolled speaker of each row."""
        return self.table.texts("speaker")

    @cached_property
    def utterances(self) -> list[list[str]]:
        """Names of the enrolment utterances of each row."""
        return [cell.split(",") for cell in self.table.texts("utterances")]


class Trials(TableView):
    """Trials, with the columns speaker, utterance, label (target, nontarget, spoof), and optionally
    attack.
    """

    known: tuple[str, ...] = TRIAL_LABELS

    def __init__(self, table: Table):
        super().__init__(table)
        table.require("speaker", "utterance", "label")
        check_filled(table, "speaker", "utterance")
        check_known(table, "label", self.known)

    @cached_property
    def speakers(self) -> tuple[np.ndarray, list[str]]:
        """Index of the claimed speaker of each trial, (trials,), and the names of the speakers."""
        return self.table.codes("speaker")

    @cached_property
    def utterances(self) -> tuple[np.ndarray, list[str]]:
        """Index of the test utterance of each trial, (trials,), and the names of the utterances."""
        return self.table.codes("utterance")

    @cached_property
    def labels(self) -> np.ndarray:
        """Label of each trial, (trials,): 0 target, 1 nontarget, 2 spoof."""
        codes, names = self.table.codes("label")
        kinds = {name: index for index, name in enumerate(TRIAL_LABELS)} | {BONA_FIDE: 0}
        return np.array([kinds[name] for name in names], np.int8)[codes]

    def counts(self) -> dict[str, int]:
        """Number of trials with each label."""
        return {name: int((self.labels == index).sum()) for index, name in enumerate(TRIAL_LABELS)}


def load_enrolments(path: str | Path) -> Enrolments:
    """Read and validate an enrolment table."""
    return Enrolments(Table.load(path))


def load_trials(path: str | Path) -> Trials:
    """Read and validate a trial table."""
    return Trials(Table.load(path))


def drawn_impostors(
    recordings: Mapping[Speaker, Sequence[Recording]],
    claimed: Speaker,
    most: int,
    rng: np.random.Generator,
) -> list[Recording]:
    """Draw recordings of other speakers, each of which is said to be of ``claimed``.

    Args:
        recordings: speaker -> recordings.
        claimed: one of the speakers.
        most: how many are drawn, if there are as many.
        rng: draws them.

    Returns:
        The recordings, in the order of the speakers' names.
    """
    others = [
        recording
        for speaker in sorted(recordings)
        if speaker != claimed
        for recording in recordings[speaker]
    ]
    rows = sorted(rng.permutation(len(others))[:most].tolist())
    return [others[row] for row in rows]
