"""Fits a spoof head to the embeddings of an encoder that is not trained."""

import numpy as np

from sasv.calibration.backend import logistic_regression
from sasv.core.errors import SasvError
from sasv.scores.directions import unit
from sasv.scores.spoofing import SpoofHead


def fit_spoof_head(vectors: np.ndarray, spoofed: np.ndarray, ridge: float = 0.01) -> SpoofHead:
    """Fit a linear spoof head by logistic regression, with equal weights of bona fide and spoofed
    speech.

    Args:
        vectors: (utterances, dimension), raw embeddings.
        spoofed: (utterances,) boolean.
        ridge: weight of the squared norm of the head, for embeddings whose numbers have a mean
            square of 1.

    Raises:
        SasvError: one of the two kinds is missing, or an embedding is not finite.
    """
    spoofed = np.asarray(spoofed, bool)
    if spoofed.all() or not spoofed.any():
        raise SasvError("a spoof head needs embeddings of bona fide and of spoofed speech")
    if not np.isfinite(vectors).all():
        raise SasvError("a spoof head needs finite embeddings")
    scale = np.sqrt(vectors.shape[1])
    directions = unit(vectors).astype(np.float64)
    centre = directions.mean(axis=0)
    inputs = np.column_stack((scale * (directions - centre), np.ones(len(directions))))
    weight = np.where(spoofed, 0.5 / spoofed.sum(), 0.5 / (~spoofed).sum())
    wanted = (~spoofed).astype(np.float64)
    solved = logistic_regression(inputs, wanted, weight, ridge_weight=ridge)
    slopes = scale * solved[:-1]
    return SpoofHead(slopes, float(solved[-1] - slopes @ centre))
