"""Tables of utterances, enrolments, trials, and scores, stored as human-readable TSV files (see
docs/tables.md).

Arrow, which reads and writes them, is imported with the first table: a verification needs none.
"""

from typing import TYPE_CHECKING

from sasv.core.lazy import lazily
from sasv.tables.labels import BONA_FIDE, NONE, TRIAL_LABELS

if TYPE_CHECKING:
    from sasv.tables.join import check_trials, needed_names, needed_utterances
    from sasv.tables.scores import Scores, load_scores, save_scores
    from sasv.tables.table import Table
    from sasv.tables.trials import (
        Enrolments,
        Trials,
        drawn_impostors,
        load_enrolments,
        load_trials,
    )
    from sasv.tables.utterances import Utterances, load_utterances

__all__ = [
    "BONA_FIDE",
    "NONE",
    "TRIAL_LABELS",
    "Enrolments",
    "Scores",
    "Table",
    "Trials",
    "Utterances",
    "check_trials",
    "drawn_impostors",
    "load_enrolments",
    "load_scores",
    "load_trials",
    "load_utterances",
    "needed_names",
    "needed_utterances",
    "save_scores",
]

__getattr__ = lazily(
    __name__,
    {
        "join": ("check_trials", "needed_names", "needed_utterances"),
        "scores": ("Scores", "load_scores", "save_scores"),
        "table": ("Table",),
        "trials": ("Enrolments", "Trials", "drawn_impostors", "load_enrolments", "load_trials"),
        "utterances": ("Utterances", "load_utterances"),
    },
)
