"""Tables as TSV files that a person can open: utterances, enrolments, trials, scores (docs/tables.md)."""

from sasv.tables.kinds import (
    NONE,
    Enrolments,
    Scores,
    Trials,
    Utterances,
    check_trials,
    load_enrolments,
    load_scores,
    load_trials,
    load_utterances,
    needed_names,
    needed_utterances,
    save_scores,
)
from sasv.tables.table import Table

__all__ = [
    "NONE",
    "Enrolments",
    "Scores",
    "Table",
    "Trials",
    "Utterances",
    "check_trials",
    "load_enrolments",
    "load_scores",
    "load_trials",
    "load_utterances",
    "needed_names",
    "needed_utterances",
    "save_scores",
]
