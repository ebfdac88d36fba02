"""Scores of claims: trials of a protocol through a verifier."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sasv.decision import Verifier
from sasv.embeddings.extract import Embeddings, utterance_seconds
from sasv.evaluation.protocol import CARRIED, Protocol
from sasv.scores import Scoring, SpoofHead, TrialClasses, score_embeddings
from sasv.scores.quality import quality_measures
from sasv.scores.scoring import save_scoring
from sasv.tables import Enrolments, Scores, Trials, Utterances, save_scores


@dataclass(frozen=True)
class SpoofColumns:
    """What a score file says about spoofing beside the score.

    Attributes:
        head: scores the tested utterance as bona fide or spoofed: the column ``cm_score``.
        classes: of a model of the three-class loss: the column ``llr``, a log-likelihood ratio. It
            is of cosines, as in training; scores that are normalised by a cohort get none.
        spoof_share: of the ratio: share of spoofs among the trials that are not of the target.
    """

    head: SpoofHead
    classes: TrialClasses | None = None
    spoof_share: float = 0.5

    def cells(
        self, trials: Trials, embeddings: Embeddings, scores: np.ndarray, scoring: Scoring
    ) -> dict[str, list[str]]:
        """Return the columns as cells, by name.

        Args:
            trials: the trials.
            embeddings: of their utterances.
            scores: (trials,) their scores.
            scoring: how these were made.
        """
        codes, names = trials.utterances
        place = {name: row for row, name in enumerate(embeddings.utterances)}
        cm_scores = self.head.scores(embeddings.vectors[[place[name] for name in names]])[codes]
        columns = {"cm_score": cm_scores}
        if self.classes is not None and scoring.cohort is None:
            columns["llr"] = self.classes.llr(scores, cm_scores, self.spoof_share)
        return {name: [f"{value:.9g}" for value in values] for name, values in columns.items()}


def score_claims(
    protocol: Protocol,
    embeddings: Embeddings,
    verifier: Verifier,
    path: Path,
    quality: bool = False,
    spoofing: SpoofColumns | None = None,
) -> Scores:
    """Score the claims of a protocol; write the score file, and beside it how the scores were made.

    Args:
        protocol: with enrolments and trials.
        embeddings: of its utterances.
        verifier: how embeddings become scores.
        path: of the score file.
        quality: write the quality measures of each trial as well.
        spoofing: what is written about spoofing.
    """
    utterances, enrolments, trials = protocol
    assert enrolments is not None and trials is not None
    values = score_embeddings(
        embeddings.vectors,
        embeddings.utterances,
        enrolments,
        trials,
        embeddings.failures,
        verifier.scoring,
    )
    codes, names = trials.utterances
    rows = np.array([utterances.rows[name] for name in names])[codes]
    extras = {}
    for column in CARRIED:
        if column in utterances.table.columns and column not in trials.table.columns:
            cells = utterances.table.texts(column)
            extras[column] = [cells[row] for row in rows]
    if quality:
        extras |= trial_quality(enrolments, trials, utterances, embeddings, rows)
    if spoofing is not None:
        extras |= spoofing.cells(trials, embeddings, values, verifier.scoring)
    scores = save_scores(path, trials, values, extras)
    save_scoring(path, verifier.scoring.to_dict(), embeddings.model)
    return scores


def trial_quality(
    enrolments: Enrolments,
    trials: Trials,
    utterances: Utterances,
    embeddings: Embeddings,
    rows: np.ndarray,
) -> dict[str, list[str]]:
    """Return the quality measures of each trial as cells, by name.

    Args:
        enrolments: utterances of each speaker.
        trials: the trials.
        utterances: their utterances.
        embeddings: of these.
        rows: (trials,) row of the tested utterance in ``utterances``.
    """
    codes, speakers = trials.speakers
    sizes = dict(zip(enrolments.speakers, map(len, enrolments.utterances)))
    counts = np.array([sizes[name] for name in speakers])[codes]
    place = {name: row for row, name in enumerate(embeddings.utterances)}
    vectors = embeddings.vectors[[place[name] for name in trials.utterances[1]]][
        trials.utterances[0]
    ]
    found = quality_measures(utterance_seconds(utterances)[rows], counts, vectors)
    return {name: [f"{value:.6g}" for value in values] for name, values in found.items()}
