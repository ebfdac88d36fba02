"""Adaptive symmetric score normalisation (s-norm) against a cohort of other people.

Source: Matejka et al., "Analysis of score normalization in multilingual speaker recognition", Interspeech 2017
(adaptive s-norm 1: the top scores of each side).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sasv.core.errors import SasvError

BLOCK = 1024
"""Rows multiplied with the cohort at once, so that the memory of a million utterances is that of a block."""


@dataclass(frozen=True)
class Cohort:
    """Directions of other people, float (cohort, dimension), no longer than 1."""

    vectors: np.ndarray

    @classmethod
    def build(cls, vectors: np.ndarray, speakers: Sequence[str] | None = None, crops: bool = False) -> "Cohort":
        """Make a cohort of embeddings.

        Args:
            vectors: (utterances, dimension), raw (or multi-crop).
            speakers: speaker of each row, to average the embeddings of each; None keeps utterances apart.
            crops: the embeddings are multi-crop: they are not normalised.
        """
        if len(vectors) < 2:
            raise SasvError(f"a cohort of {len(vectors)}: s-norm needs at least two, better hundreds")
        if speakers is not None:
            _, index = np.unique(np.array(speakers), return_inverse=True)
            sums = np.zeros((int(index.max()) + 1, vectors.shape[1]), np.float64)
            np.add.at(sums, index, vectors)
            vectors = (sums / np.bincount(index)[:, None]).astype(vectors.dtype)
            if len(vectors) < 2:
                raise SasvError("a cohort of one speaker: s-norm needs at least two, better hundreds")
        if crops:
            return cls(vectors)
        return cls(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))


def cohort_statistics(directions: np.ndarray, cohort: Cohort, top: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and unbiased standard deviation of the highest cohort scores of each row, both (rows,).

    Args:
        directions: (rows, dimension).
        cohort: whom to score against.
        top: how many count; 0, or more than there are, takes all.
    """
    size = len(cohort.vectors)
    top = min(top, size) if top else size
    if top < 2:
        raise SasvError("s-norm needs at least the two highest cohort scores (top 2)")
    means, deviations = np.empty(len(directions)), np.empty(len(directions))
    for low in range(0, len(directions), BLOCK):
        part = slice(low, low + BLOCK)
        scores = (directions[part] @ cohort.vectors.T).astype(np.float64)
        best = np.partition(scores, size - top, axis=1)[:, size - top :]
        means[part], deviations[part] = best.mean(axis=1), best.std(axis=1, ddof=1)
    return means, np.maximum(deviations, 1e-12)


def s_norm(
    scores: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
    enrolment: np.ndarray,
    utterance: np.ndarray,
    cohort: Cohort,
    top: int = 300,
) -> np.ndarray:
    """Return adaptively normalised scores: the mean of the score standardised on both sides, (trials,).

    Args:
        scores: (trials,) inner products.
        left, right: directions of enrolments and of tests.
        enrolment, utterance: (trials,) rows of the two.
        cohort, top: as in cohort_statistics.
    """
    used, place = np.unique(utterance, return_inverse=True)
    one, other = cohort_statistics(left, cohort, top), cohort_statistics(right[used], cohort, top)
    first = (scores - one[0][enrolment]) / one[1][enrolment]
    return (first + (scores - other[0][place]) / other[1][place]) / 2
