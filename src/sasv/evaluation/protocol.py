"""The protocol of an evaluation: utterances and, except for a countermeasure, enrolments and
trials.
"""

from collections.abc import Sequence
from typing import NamedTuple

from sasv.core.errors import SasvError
from sasv.tables import (
    Enrolments,
    Trials,
    Utterances,
    load_enrolments,
    load_trials,
    load_utterances,
    needed_utterances,
)

CARRIED = ("codec", "gender")
"""Columns of the utterance table that are copied into the score file, so that metrics can be
grouped by them.
"""


class Protocol(NamedTuple):
    """The utterances that are needed and, except for a countermeasure, enrolments and trials."""

    utterances: Utterances
    enrolments: Enrolments | None = None
    trials: Trials | None = None


def load_protocol(
    utterances: str, enrolments: str = "", trials: str = "", where: str = ""
) -> Protocol:
    """Read the tables of a protocol, each once.

    Args:
        utterances: path of the utterance table.
        enrolments: path of the enrolment table; empty, with empty trials, for a countermeasure.
        trials: path of the trial table.
        where: for a countermeasure, use only the utterances with this ``column=value``.

    Raises:
        SasvError: only one of trials and enrolments is given, or they refer to unknown speakers or
            utterances.
    """
    if bool(enrolments) != bool(trials):
        raise SasvError(
            "--trials and --enrolments belong together; give both, or neither to evaluate a "
            "countermeasure"
        )
    if where and trials:
        raise SasvError(
            "--where selects utterances for a countermeasure and cannot be used with --trials, "
            "which name their utterances"
        )
    if not trials:
        return Protocol(load_utterances(utterances, where))
    enrolled = load_enrolments(enrolments)
    claims = load_trials(trials)
    needed = needed_utterances(load_utterances(utterances), enrolled, claims)
    return Protocol(needed, enrolled, claims)


def check_groups(protocol: Protocol, columns: Sequence[str]) -> None:
    """Raise SasvError if a column by which metrics are to be grouped does not exist."""
    known = ["attack", *protocol.utterances.table.columns]
    if protocol.trials is not None:
        known += protocol.trials.table.columns
    unknown = [column for column in columns if column not in known]
    if unknown:
        raise SasvError(
            f"--by {','.join(unknown)}: neither {protocol.utterances.table.name} nor the trials "
            f"have this column; they have: {', '.join(dict.fromkeys(known))}"
        )
