"""Computes one score for each trial from embeddings; reads score files of other systems."""

from typing import TYPE_CHECKING

from sasv.core.lazy import lazily
from sasv.scores.directions import unit
from sasv.scores.normalise import Cohort, cohort_statistics, s_norm
from sasv.scores.scoring import Scoring, enrolment_vectors
from sasv.scores.spoofing import Evidence, SpoofHead, ThreeClass, TrialClasses

if TYPE_CHECKING:
    from sasv.scores.cosine import score_embeddings, score_trials
    from sasv.scores.files import read_scores, write_submission

__all__ = [
    "Cohort",
    "Evidence",
    "Scoring",
    "SpoofHead",
    "ThreeClass",
    "TrialClasses",
    "cohort_statistics",
    "enrolment_vectors",
    "read_scores",
    "s_norm",
    "score_embeddings",
    "score_trials",
    "unit",
    "write_submission",
]

# These need tables, which a verification does not.
__getattr__ = lazily(
    __name__,
    {
        "cosine": ("score_embeddings", "score_trials"),
        "files": ("read_scores", "write_submission"),
    },
)
