"""Computes one score for each trial from embeddings; reads score files of other systems."""

from sasv.scores.cosine import score_embeddings, score_trials
from sasv.scores.directions import unit
from sasv.scores.files import read_scores, write_submission
from sasv.scores.normalise import Cohort, cohort_statistics, s_norm
from sasv.scores.scoring import Scoring, enrolment_vectors
from sasv.scores.spoofing import Evidence, SpoofHead, ThreeClass, TrialClasses

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
