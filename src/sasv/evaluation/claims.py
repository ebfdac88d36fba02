"""Scores the trials of a protocol with a verifier."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sasv.audio import RATE
from sasv.decision import CalibratedHead, Verifier, outcomes
from sasv.embeddings.extract import Embeddings, utterance_seconds
from sasv.embeddings.model import Model
from sasv.evaluation.fusion import ASV, CM, Fusion
from sasv.evaluation.outcomes import OUTCOME
from sasv.evaluation.protocol import CARRIED, Protocol
from sasv.metrics import DEFAULT_COSTS
from sasv.scores import Scoring, TrialClasses, score_embeddings
from sasv.scores.quality import (
    BANDWIDTH,
    ENROLMENT_BANDWIDTH,
    Bandwidths,
    enrolment_bandwidth,
    quality_measures,
)
from sasv.scores.scoring import same_scoring, save_scoring
from sasv.tables import Enrolments, Scores, Trials, Utterances, save_scores

FULL_BAND = RATE / 2
"""Bandwidth in Hz in a score file if it is unknown: that of 16 kHz audio."""


@dataclass(frozen=True)
class Spoofing:
    """The columns about spoofing in a score file.

    Attributes:
        scores: utterance -> score of a countermeasure, high for bona fide speech: the column
            ``cm_score``.
        fusion: combines the score of the speaker system, which is then written as the column
            ``asv_score``, and ``cm_score`` into the score; None leaves the score unchanged.
        classes: the three classes of a model with the three-class loss, which give the column
            ``llr``, a log-likelihood ratio. It is computed from cosines, as in training, so there
            is none for scores that are normalised with a cohort.
        spoof_share: share of spoofs among the trials that are not target trials, for this ratio.
        three_way: calibration of a model with a three-way calibration, which gives the columns
            ``speaker_llr``, ``spoof_llr``, ``llr``, and ``outcome``.
    """

    scores: Mapping[str, float]
    fusion: Fusion | None = None
    classes: TrialClasses | None = None
    spoof_share: float = 0.5
    three_way: CalibratedHead | None = None

    def columns(
        self,
        trials: Trials,
        scores: np.ndarray,
        scoring: Scoring,
        quality: Mapping[str, np.ndarray],
    ) -> dict[str, np.ndarray]:
        """Return columns of the score file by name, each (trials,). They include ``score`` if there
        is a fusion.

        Args:
            trials: the trials.
            scores: (trials,) scores of the speaker system.
            scoring: how these scores were made.
            quality: quality measures of the trials, if the fusion needs them.
        """
        codes, names = trials.utterances
        cm_scores = np.array([self.scores[name] for name in names], np.float64)[codes]
        columns = {CM: cm_scores}
        if self.fusion is not None:
            columns = {ASV: np.asarray(scores, np.float64), CM: cm_scores}
            columns["score"] = self.fusion({**columns, **quality})
        if self.classes is not None and scoring.cohort is None:
            columns["llr"] = self.classes.llr(scores, cm_scores, self.spoof_share)
        return columns

    def verdicts(
        self,
        scores: np.ndarray,
        cm_scores: np.ndarray,
        norms: np.ndarray,
        bandwidths: Bandwidths | None = None,
    ) -> tuple[dict[str, np.ndarray], list[str]]:
        """Return the log-likelihood ratios by name, and the outcomes, of a three-way calibration.

        Args:
            scores: (trials,) of the speaker system.
            cm_scores: (trials,) of the tested utterances.
            norms: (trials,) norms of their embeddings.
            bandwidths: of both sides of the trials; None takes all speech for wide-band.
        """
        assert self.three_way is not None
        calibration = self.three_way.calibration
        evidence = calibration(scores, cm_scores, norms, bandwidths)
        columns = {
            "speaker_llr": evidence.speaker,
            "spoof_llr": evidence.spoof,
            "llr": evidence.llr(calibration.costs.spoof_share),
        }
        return columns, [one.value for one in outcomes(evidence, calibration.costs)]


def own_spoofing(
    model: Model,
    embeddings: Embeddings,
    scoring: Scoring,
    fusion: Fusion | None,
    spoof_share: float | None,
) -> Spoofing | None:
    """Return the columns about spoofing that a model computes; None if it has no spoof head.

    Args:
        model: the model.
        embeddings: embeddings of all utterances.
        scoring: how the scores are made; a three-way calibration for other scores is ignored.
        fusion: fusion of the two scores of the model, or None.
        spoof_share: see ``Spoofing``; None takes that of the default cost model.
    """
    head = model.spoof_head()
    if head is None:
        return None
    scores = dict(zip(embeddings.utterances, head.scores(embeddings.vectors).tolist()))
    if spoof_share is None:
        spoof_share = DEFAULT_COSTS.spoof_share
    three_way = None
    record = (model.specification.decision or {}).get("three_way")
    if record and fusion is None and same_scoring(model.specification.scoring, scoring.to_dict()):
        three_way = CalibratedHead.from_record(record)
    return Spoofing(scores, fusion, model.trial_classes(), spoof_share, three_way)


def score_claims(
    protocol: Protocol,
    embeddings: Embeddings,
    verifier: Verifier,
    path: Path,
    quality: bool = False,
    spoofing: Spoofing | None = None,
    bandwidths: np.ndarray | None = None,
) -> Scores:
    """Score the trials of a protocol; write the score file, and next to it the record of how the
    scores were made.

    Args:
        protocol: the protocol, with enrolments and trials.
        embeddings: embeddings of its utterances.
        verifier: computes the scores from embeddings.
        path: the score file.
        quality: whether to write the quality measures of each trial as well.
        spoofing: the columns about spoofing, or None.
        bandwidths: (utterances,) bandwidth of each utterance of the protocol in Hz, NaN if it is
            unknown; None takes all speech for wide-band.
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
    fusion = None if spoofing is None else spoofing.fusion
    measures = {}
    if quality or (fusion is not None and fusion.needs_quality):
        measures = trial_quality(enrolments, trials, utterances, embeddings, rows)
    sides = None
    if bandwidths is not None:
        sides = trial_bandwidths(enrolments, trials, utterances, bandwidths)
    if quality:
        extras |= cells_of(measures, 6)
        if sides is not None:
            named = {BANDWIDTH: sides.tested, ENROLMENT_BANDWIDTH: sides.enrolled}
            finite = {
                name: np.where(np.isfinite(values), values, FULL_BAND)
                for name, values in named.items()
            }
            extras |= cells_of(finite, 6)
    if spoofing is not None:
        columns = spoofing.columns(trials, values, verifier.scoring, measures)
        if spoofing.three_way is not None:
            norms = np.linalg.norm(tested_vectors(trials, embeddings), axis=1)
            llrs, verdicts = spoofing.verdicts(values, columns[CM], norms, sides)
            columns |= llrs
            extras[OUTCOME] = verdicts
        values = columns.pop("score", values)
        extras |= cells_of(columns, 9)
    scores = save_scores(path, trials, values, extras)
    record = verifier.scoring.to_dict()
    save_scoring(path, record if fusion is None else fusion.record(record), embeddings.model)
    return scores


def cells_of(columns: Mapping[str, np.ndarray], digits: int) -> dict[str, list[str]]:
    """Return columns of numbers, name -> (trials,), as strings with a given number of digits."""
    return {name: [f"{value:.{digits}g}" for value in values] for name, values in columns.items()}


def trial_quality(
    enrolments: Enrolments,
    trials: Trials,
    utterances: Utterances,
    embeddings: Embeddings,
    rows: np.ndarray,
) -> dict[str, np.ndarray]:
    """Return the quality measures of each trial, name -> (trials,).

    Args:
        enrolments: the enrolment utterances of each speaker.
        trials: the trials.
        utterances: table of their utterances.
        embeddings: embeddings of these utterances.
        rows: (trials,) row of the test utterance in ``utterances``.
    """
    codes, speakers = trials.speakers
    sizes = dict(zip(enrolments.speakers, map(len, enrolments.utterances)))
    counts = np.array([sizes[name] for name in speakers])[codes]
    vectors = tested_vectors(trials, embeddings)
    return quality_measures(utterance_seconds(utterances)[rows], counts, vectors)


def trial_bandwidths(
    enrolments: Enrolments, trials: Trials, utterances: Utterances, bandwidths: np.ndarray
) -> Bandwidths:
    """Return the bandwidths of both sides of each trial, in Hz; infinite or NaN if unknown.

    Args:
        enrolments: the enrolment utterances of each speaker.
        trials: the trials.
        utterances: table of their utterances.
        bandwidths: (utterances,) of each row of that table; NaN if it is unknown.
    """
    rows = utterances.rows
    codes, names = trials.utterances
    tested = bandwidths[[rows[name] for name in names]][codes]
    of_speaker = {
        speaker: enrolment_bandwidth([float(bandwidths[rows[name]]) for name in members])
        for speaker, members in zip(enrolments.speakers, enrolments.utterances)
    }
    codes, speakers = trials.speakers
    enrolled = np.array([of_speaker[name] for name in speakers], np.float64)[codes]
    return Bandwidths(tested, enrolled)


def tested_vectors(trials: Trials, embeddings: Embeddings) -> np.ndarray:
    """Return the raw embedding of the test utterance of each trial, (trials, dimension)."""
    place = {name: row for row, name in enumerate(embeddings.utterances)}
    codes, names = trials.utterances
    found: np.ndarray = embeddings.vectors[[place[name] for name in names]][codes]
    return found
