"""Scores of trials as products of directions: cosine as published, other enrolments, multi-crop, adaptive s-norm."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sasv.core.errors import SasvError, TableError, some
from sasv.scores.normalise import Cohort, s_norm
from sasv.tables import Enrolments, Trials, check_trials, needed_names

GATHERED = 1 << 16
"""Trials per step where each pair is multiplied on its own."""

DENSE_CELLS = 1 << 24


def _normalised(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12).astype(vectors.dtype)


ENROLMENTS = ("mean", "normalised", "scores")
"""What stands for a speaker with several recordings: the mean of raw embeddings (published), the mean of normalised
ones, or no vector at all: the mean of the scores against each."""


@dataclass(frozen=True)
class Scoring:
    """How embeddings become scores.

    Attributes:
        enrolment: one of ENROLMENTS.
        cohort: embeddings of other people for adaptive s-norm; None leaves scores as they are.
        top: cohort scores that count, on each side; 0 takes all.
        crops: the embeddings are means of normalised embeddings of crops (multi-crop): they are not normalised again,
            so a score is the mean over all pairs of crops.
    """

    enrolment: str = "mean"
    cohort: Cohort | None = None
    top: int = 300
    crops: bool = False

    def __post_init__(self) -> None:
        if self.enrolment not in ENROLMENTS:
            raise SasvError(f"'{self.enrolment}' is no enrolment; use one of: {', '.join(ENROLMENTS)}")

    def directions(self, vectors: np.ndarray, members: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        """Return (speakers, dimension) and (utterances, dimension) whose inner products are the scores.

        Args:
            vectors: (utterances, dimension), raw embeddings.
            members: rows of each speaker's enrolment utterances.
        """
        tests = vectors if self.crops else _normalised(vectors)
        if self.enrolment == "mean" and not self.crops:
            return _normalised(enrolment_vectors(vectors, members)), tests
        speakers = enrolment_vectors(tests, members)
        return _normalised(speakers) if self.enrolment == "normalised" else speakers, tests


def enrolment_vectors(vectors: np.ndarray, members: Sequence[Sequence[int]]) -> np.ndarray:
    """Return (speakers, dimension): the mean of the embeddings at each speaker's rows."""
    return np.stack([vectors[list(rows)].mean(axis=0) for rows in members])


def score_trials(left: np.ndarray, right: np.ndarray, enrolment: np.ndarray, utterance: np.ndarray) -> np.ndarray:
    """Return the cosine of each trial.

    Args:
        left: (speakers, dimension), embeddings of any length.
        right: (utterances, dimension), as well.
        enrolment, utterance: (trials,) rows of the two.

    Returns:
        (trials,) in the dtype of the embeddings, in [-1, 1].
    """
    return products(_normalised(left), _normalised(right), enrolment, utterance)


def products(left: np.ndarray, right: np.ndarray, enrolment: np.ndarray, utterance: np.ndarray) -> np.ndarray:
    """Return the inner product of each trial, (trials,) in [-1, 1], of directions no longer than 1."""
    scores = np.empty(len(enrolment), left.dtype)
    if len(left) * len(right) <= 4 * len(scores):
        # Most pairs are asked for: multiply whole blocks of speakers, then pick.
        order = np.argsort(enrolment, kind="stable")
        sorted_rows = enrolment[order]
        block = max(1, DENSE_CELLS // max(len(right), 1))
        for low in range(0, len(left), block):
            first, last = np.searchsorted(sorted_rows, [low, low + block])
            trials = order[first:last]
            dense = left[low : low + block] @ right.T
            scores[trials] = dense[enrolment[trials] - low, utterance[trials]]
    else:
        for low in range(0, len(scores), GATHERED):
            part = slice(low, low + GATHERED)
            scores[part] = np.einsum("td,td->t", left[enrolment[part]], right[utterance[part]])
    return np.clip(scores, -1.0, 1.0)


def score_embeddings(
    vectors: np.ndarray,
    utterances: Sequence[str],
    enrolments: Enrolments,
    trials: Trials,
    failures: Sequence[str] = (),
    scoring: Scoring | None = None,
) -> np.ndarray:
    """Score trials from embeddings and the names of their rows.

    Raises:
        TableError: a trial or an enrolment names what is not there; utterances that failed are told apart.
    """
    scoring = scoring or Scoring()
    lost = sorted(needed_names(enrolments, trials).intersection(failures))
    if lost:
        raise TableError(
            f"{trials.table.name}: {len(lost)} utterances that it needs could not be embedded ({some(lost)}); "
            "mend the files or drop their rows"
        )
    known = {name: row for row, name in enumerate(utterances)}
    rows = check_trials(trials, enrolments, known)
    members = [[known[name] for name in names] for names in enrolments.utterances]
    left, right = scoring.directions(vectors, members)
    scores = products(left, right, rows.enrolment, rows.utterance)
    if scoring.cohort is not None:
        scores = s_norm(scores, left, right, rows.enrolment, rows.utterance, scoring.cohort, scoring.top)
    return scores
