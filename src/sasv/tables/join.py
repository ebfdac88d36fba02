"""Joins trials with enrolments and utterances."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sasv.core.errors import TableError, listed
from sasv.tables.trials import Enrolments, Trials
from sasv.tables.utterances import Utterances

logger = logging.getLogger("sasv")


@dataclass(frozen=True)
class TrialRows:
    """Row numbers of the enrolment and of the test utterance of each trial, (trials,) each."""

    enrolment: np.ndarray
    utterance: np.ndarray


def check_trials(
    trials: Trials, enrolments: Enrolments, known: Sequence[str] | dict[str, int]
) -> TrialRows:
    """Join trials with enrolments and known utterances.

    Args:
        trials: the trials.
        enrolments: the enrolled speakers.
        known: utterance names in the order of their rows, or name -> row.

    Raises:
        TableError: a trial names a speaker who is not enrolled, or a trial or an enrolment names an
            unknown utterance.
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
    """Return the names of all utterances that a protocol uses for enrolment or test."""
    return set(trials.utterances[1]) | {name for names in enrolments.utterances for name in names}


def needed_utterances(everything: Utterances, enrolments: Enrolments, trials: Trials) -> Utterances:
    """Return the rows that a protocol needs, in the order of the table.

    Raises:
        TableError: as in ``check_trials``, or a trial appears twice with different labels.
    """
    rows = check_trials(trials, enrolments, everything.rows)
    _check_labels(trials, rows)
    _warn_of_enrolled_tests(trials, enrolments, rows, everything.rows)
    return everything.take(
        np.array(sorted(everything.rows[name] for name in needed_names(enrolments, trials)))
    )


def _check_labels(trials: Trials, rows: TrialRows) -> None:
    """Raise TableError if a trial appears twice with different labels."""
    pairs = rows.enrolment * (int(rows.utterance.max(initial=0)) + 1) + rows.utterance
    order = np.argsort(pairs, kind="stable")
    same = pairs[order[1:]] == pairs[order[:-1]]
    other = same & (trials.labels[order[1:]] != trials.labels[order[:-1]])
    if other.any():
        at = int(np.flatnonzero(other)[0])
        first = trials.table.line(int(order[at]))
        raise trials.table.bad_cell(
            "utterance",
            int(order[at + 1]),
            f"appears twice for one speaker (first in line {first}), with another label; keep one",
        )


def _warn_of_enrolled_tests(
    trials: Trials, enrolments: Enrolments, rows: TrialRows, known: dict[str, int]
) -> None:
    """Warn of trials that compare a speaker with one of the speaker's own enrolment utterances."""
    size = max(known.values(), default=0) + 1
    enrolled = [
        row * size + known[name]
        for row, names in enumerate(enrolments.utterances)
        for name in names
    ]
    pairs = rows.enrolment * size + rows.utterance
    found = np.flatnonzero(np.isin(pairs, np.array(enrolled, np.int64)))
    if len(found):
        logger.warning(
            "warning: %s, line %d: the test utterance is also an enrolment utterance of the same "
            "speaker, in %d trials in all; their scores say nothing",
            trials.table.name,
            trials.table.line(int(found[0])),
            len(found),
        )


def _all_known(
    table: str, what: str, names: Sequence[str], known: dict[str, int], where: str
) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise TableError(
            f"{table}: {what} {listed(unknown)} is not in {where}; add it there or remove its rows"
        )
