"""Scores: embeddings and trials in, one number a trial out."""

from sasv.scores.cosine import enrolment_vectors, score_embeddings, score_trials

__all__ = ["enrolment_vectors", "score_embeddings", "score_trials"]
