"""Cosine scores. Enrolment is the mean of the raw embeddings of all enrolment files, as published."""

from collections.abc import Sequence

import numpy as np

from sasv.core.errors import TableError, some
from sasv.tables import Enrolments, Trials, check_trials, needed_names

GATHERED = 1 << 16
"""Trials per step where each pair is multiplied on its own."""

DENSE_CELLS = 1 << 24


def _normalised(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12).astype(vectors.dtype)


def enrolment_vectors(vectors: np.ndarray, members: Sequence[Sequence[int]]) -> np.ndarray:
    """Return (speakers, dimension): the mean of the raw embeddings at each speaker's rows."""
    return np.stack([vectors[list(rows)].mean(axis=0) for rows in members])


def score_trials(enrolments: np.ndarray, tests: np.ndarray, enrolment: np.ndarray, utterance: np.ndarray) -> np.ndarray:
    """Return the cosine of each trial.

    Args:
        enrolments: (speakers, dimension).
        tests: (utterances, dimension).
        enrolment, utterance: (trials,) rows of the two.

    Returns:
        (trials,) in the dtype of the embeddings, in [-1, 1].
    """
    left, right = _normalised(enrolments), _normalised(tests)
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
    vectors: np.ndarray, utterances: Sequence[str], enrolments: Enrolments, trials: Trials, failures: Sequence[str] = ()
) -> np.ndarray:
    """Score trials from embeddings and the names of their rows.

    Raises:
        TableError: a trial or an enrolment names what is not there; utterances that failed are told apart.
    """
    lost = sorted(needed_names(enrolments, trials).intersection(failures))
    if lost:
        raise TableError(
            f"{trials.table.name}: {len(lost)} utterances that it needs could not be embedded ({some(lost)}); "
            "mend the files or drop their rows"
        )
    known = {name: row for row, name in enumerate(utterances)}
    rows = check_trials(trials, enrolments, known)
    members = [[known[name] for name in names] for names in enrolments.utterances]
    return score_trials(enrolment_vectors(vectors, members), vectors, rows.enrolment, rows.utterance)
