"""Scores of trials from embeddings and tables."""

from collections.abc import Mapping, Sequence

import numpy as np

from sasv.core.errors import TableError, listed
from sasv.scores.directions import unit, without_direction
from sasv.scores.scoring import Scoring, products
from sasv.tables import Enrolments, Trials, check_trials, needed_names


def score_trials(
    left: np.ndarray, right: np.ndarray, enrolment: np.ndarray, utterance: np.ndarray
) -> np.ndarray:
    """Return the cosine of each trial.

    Args:
        left: (speakers, dimension), embeddings of any norm.
        right: (utterances, dimension), embeddings of any norm.
        enrolment: (trials,) rows of ``left``.
        utterance: (trials,) rows of ``right``.

    Returns:
        (trials,) in the dtype of the embeddings, in [-1, 1].
    """
    return products(unit(left), unit(right), enrolment, utterance)


def score_embeddings(
    vectors: np.ndarray,
    utterances: Sequence[str],
    enrolments: Enrolments,
    trials: Trials,
    failures: Mapping[str, str] | None = None,
    scoring: Scoring | None = None,
) -> np.ndarray:
    """Score trials from embeddings and the names of their rows.

    Args:
        vectors: (utterances, dimension), raw embeddings.
        utterances: name of each row.
        enrolments: utterances of each enrolled speaker.
        trials: claims to score.
        failures: utterances that have no embedding -> the reason.
        scoring: how to score; None uses the cosine with the mean of the enrolment embeddings.

    Returns:
        (trials,).

    Raises:
        TableError: a trial or an enrolment refers to an unknown speaker or utterance, or to an
            utterance whose embedding is missing, zero, or not finite.
    """
    needed = needed_names(enrolments, trials)
    reasons = dict(failures or {})
    for row in np.flatnonzero(without_direction(vectors)).tolist():
        reasons[utterances[row]] = "its embedding is zero or not finite"
    lost = [f"{name}: {reasons[name]}" for name in sorted(needed.intersection(reasons))]
    if lost:
        raise TableError(
            f"{trials.table.name}: {len(lost)} of its utterances could not be embedded "
            f"({listed(lost, 3)}); fix the files or remove their rows"
        )
    known = {name: row for row, name in enumerate(utterances)}
    rows = check_trials(trials, enrolments, known)
    members = [[known[name] for name in names] for names in enrolments.utterances]
    return (scoring or Scoring()).score(vectors, members, rows.enrolment, rows.utterance)
