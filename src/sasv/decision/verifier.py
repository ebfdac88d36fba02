"""The only way from embeddings to a decision: scoring, calibration, costs, and threshold in one
object.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sasv.calibration import Backend, ThreeWay
from sasv.core.errors import SasvError
from sasv.decision.outcome import SASV, SPEAKER, SPOOF, Decision, Outcome, Reason
from sasv.decision.recording import Recording, SpeechLimits, bandwidths_of
from sasv.decision.three_way import UNFAMILIAR, CalibratedHead, rejected_spoofs, unfamiliar
from sasv.metrics import DEFAULT_COSTS, CostModel
from sasv.scores.normalise import Cohort
from sasv.scores.quality import QUALITY, quality_measures
from sasv.scores.scoring import Scoring, described, same_scoring
from sasv.scores.spoofing import Evidence, SpoofHead, ThreeClass

SCORE = "score"
"""Column of score files, and name in a calibration, of the score that decides."""


@dataclass(frozen=True)
class Verifier:
    """Computes scores from embeddings, and verdicts from scores.

    Attributes:
        scoring: how scores are computed from embeddings.
        calibration: maps scores (and quality measures, if it needs any) to log-likelihood ratios;
            None if there is no calibration.
        threshold: lowest score that is accepted; None if only log-likelihood ratios decide.
        threshold_source: data and rule from which the threshold was obtained.
        given: whether the threshold was chosen by the caller; it then decides instead of the
            calibration.
        limits: requirements that recordings must meet to be compared.
        three_class: for a model with the three-class loss. Its log-likelihood ratio decides if
            there is no calibration, and distinguishes spoofs from other speakers. It is defined for
            cosines and therefore not used for scores that are normalised with a cohort.
        three_way: for a model with a spoof head. It has precedence over a calibration of the score
            alone, and distinguishes spoofs from other speakers.
        costs: cost model of a decision by ``three_class``; a calibration has its own.
    """

    scoring: Scoring = field(default_factory=Scoring)
    calibration: Backend | None = None
    threshold: float | None = None
    threshold_source: str = ""
    given: bool = False
    limits: SpeechLimits = field(default_factory=SpeechLimits)
    three_class: ThreeClass | None = None
    three_way: CalibratedHead | None = None
    costs: CostModel = DEFAULT_COSTS

    def __post_init__(self) -> None:
        if self.threshold is not None and not np.isfinite(self.threshold):
            raise SasvError(
                f"the threshold is {self.threshold}, which accepts or rejects everything; give a "
                "number"
            )
        if self.calibration is not None:
            parts = self.calibration.parts
            values = [value for part in parts for value in (*part.weights, part.offset)]
            values.append(self.calibration.costs.bayes_threshold)
            if not parts or not np.isfinite(values).all():
                raise SasvError("the calibration is not finite; make it again with sasv calibrate")

    @classmethod
    def from_records(
        cls,
        scoring: Mapping[str, Any],
        decision: Mapping[str, Any] | None,
        cohort: Cohort | None = None,
        name: str = "the model",
        three_class: ThreeClass | None = None,
    ) -> "Verifier":
        """Make a verifier from the records of a specification.

        Args:
            scoring: how the scores were made for which the decision is valid (see
                Scoring.to_dict).
            decision: calibration, threshold and limits (see ``decision_record``), or None if there
                are none.
            cohort: the cohort of s-norm, which a checkpoint does not contain; needed if the record
                refers to one.
            name: the model, for errors.
            three_class: the classifier of a model with the three-class loss.

        Raises:
            SasvError: the record is damaged, or the cohort is missing or a different one.
        """
        try:
            wanted = scoring.get("cohort")
            made = Scoring(
                enrolment=str(scoring.get("enrolment", "mean")),
                cohort=cohort,
                top=int((wanted or {}).get("top", 300)),
                crops=int(scoring.get("crops", 0)),
                crop_seconds=float(scoring.get("crop_seconds", 4.0)),
                max_pause=None if scoring.get("max_pause") is None else float(scoring["max_pause"]),
            )
            decision = decision or {}
            calibration = decision.get("calibration")
            threshold = decision.get("threshold")
            verifier = cls(
                scoring=made,
                calibration=None if calibration is None else Backend.from_dict(calibration),
                threshold=None if threshold is None else float(threshold),
                threshold_source=str(decision.get("threshold_source", "")),
                limits=SpeechLimits.from_dict(decision.get("speech", {})),
                three_class=three_class,
                three_way=CalibratedHead.from_record(decision.get("three_way")),
            )
        except (TypeError, ValueError, AttributeError) as error:
            raise SasvError(
                f"{name}: its record of how scores are made is invalid ({error}); calibrate it "
                "again"
            ) from error
        except SasvError as error:
            raise SasvError(f"{name}: {error}") from error
        if wanted is not None and cohort is None:
            raise SasvError(
                f"{name}: its threshold is only valid for scores made with {described(scoring)}; "
                "give this cohort with --cohort FILE, the cohort.npz that sasv evaluate wrote"
            )
        verifier.check_scoring(scoring, name)
        return verifier

    def decision_record(self) -> dict[str, Any]:
        """Return calibration, threshold and limits as JSON values, for a specification."""
        record: dict[str, Any] = {
            "calibration": None if self.calibration is None else self.calibration.to_dict(),
            "threshold": self.threshold,
            "threshold_source": self.threshold_source,
            "speech": vars(self.limits).copy(),
        }
        if self.three_way is not None:
            record["three_way"] = self.three_way.to_record()
        return record

    def check_scoring(self, scoring: Mapping[str, Any], name: str) -> None:
        """Check that scores were made as those for which the decision is valid.

        Args:
            scoring: how the scores were made (see Scoring.to_dict).
            name: name of the scores, for the error.

        Raises:
            SasvError: they were made in another way; the message describes both.
        """
        if not same_scoring(self.scoring.to_dict(), scoring):
            raise SasvError(
                f"{name}: these scores were made with {described(scoring)}, but calibration and "
                f"threshold are only valid for scores made with {self.scoring.describe()}"
            )

    def calibrated(self, backend: Backend) -> "Verifier":
        """Return the verifier with another calibration, and with the threshold and source of that
        calibration.

        Raises:
            SasvError: the calibration reads other columns than the score and quality measures, or
                takes high scores for nontargets.
        """
        if (
            backend.kind != "logistic"
            or backend.columns[0] != SCORE
            or set(backend.columns[1:]) - set(QUALITY)
        ):
            raise SasvError(
                "a checkpoint can only contain the calibration of its own score (kind logistic, "
                "columns score)"
            )
        if backend.parts[0].weights[0] <= 0:
            raise SasvError(
                f"{backend.source}: targets do not have higher scores there; is this the right "
                "score file?"
            )
        source = f"costs {backend.costs.describe()}; calibrated on {backend.source}"
        threshold = None
        if len(backend.columns) == 1:
            linear = backend.parts[0]
            threshold = (backend.costs.bayes_threshold - linear.offset) / linear.weights[0]
        return replace(
            self, calibration=backend, threshold=threshold, threshold_source=source, given=False
        )

    def with_three_way(self, calibration: ThreeWay, head: SpoofHead) -> "Verifier":
        """Return the verifier with separate log-likelihood ratios for speaker and spoofing, which
        then decide.
        """
        return replace(self, three_way=CalibratedHead(head, calibration), given=False)

    @property
    def decides(self) -> bool:
        """Whether there is a threshold or calibration, so that a decision is possible."""
        return (
            self.threshold is not None
            or self.calibration is not None
            or self._by_evidence is not None
        )

    @property
    def _by_evidence(self) -> CalibratedHead | ThreeClass | None:
        """The object that computes the log-likelihood ratios of a model with a separate score for
        spoofing; None if they come from the calibration of a single score, or if there are none.
        """
        if self.three_way is not None:
            return self.three_way
        usable = self.calibration is None and self.scoring.cohort is None
        return self.three_class if usable else None

    @property
    def _llr_costs(self) -> CostModel | None:
        """Return the cost model whose Bayes threshold applies to the log-likelihood ratio; None if
        there is no ratio.
        """
        if self.three_way is not None:
            return self.three_way.calibration.costs
        if self.calibration is not None:
            return self.calibration.costs
        return None if self._by_evidence is None else self.costs

    def with_threshold(self, threshold: float) -> "Verifier":
        """Return the verifier with a threshold chosen by the caller, which decides instead of the
        calibration.
        """
        return replace(self, threshold=threshold, threshold_source="given", given=True)

    def score(self, enrolment: Sequence[np.ndarray], test: np.ndarray) -> float:
        """Return the score of a test embedding against the embeddings of enrolment recordings.

        Args:
            enrolment: raw embeddings, (dimension,) each.
            test: raw embedding, (dimension,).

        Raises:
            SasvError: there is no enrolment recording, or an embedding is zero or not finite.
        """
        if not len(enrolment):
            raise SasvError("enrolment needs at least one recording")
        vectors = np.stack([*enrolment, test])
        last = len(vectors) - 1
        return float(self.scoring.score(vectors, [range(last)], np.array([0]), np.array([last]))[0])

    def decide(self, enrolment: Sequence[Recording], test: Recording) -> Decision:
        """Compare a test recording with enrolment recordings.

        If a recording contains too little speech or its embedding is broken, nothing is compared
        and the outcome is inconclusive. The outcome is also inconclusive if a score or a
        log-likelihood ratio is not finite.

        Raises:
            SasvError: there is neither a threshold nor a calibration.
        """
        if not self.decides:
            raise SasvError(
                "there is neither a threshold nor a calibration for a decision; give --threshold, "
                "or calibrate the model with sasv calibrate"
            )
        faults = self.limits.enrolment_faults(enrolment) + self.limits.faults(test)
        if faults:
            return self._undecided(faults)
        assert test.vector is not None
        score = self.score([one.vector for one in enrolment if one.vector is not None], test.vector)
        warnings = [
            *self.limits.disagreements(enrolment),
            *self.limits.warnings([*enrolment, test]),
        ]
        if not np.isfinite(score):
            return self._undecided(
                [Reason("broken_score", "the score is not finite", True), *warnings]
            )
        evidence = self._evidence(score, enrolment, test)
        llr = self._llr(score, len(enrolment), test, evidence)
        llrs = {} if llr is None else {SASV: llr}
        if evidence is not None and self._by_evidence is not None:
            llrs |= {SPEAKER: float(evidence.speaker), SPOOF: float(evidence.spoof)}
        if not np.isfinite(list(llrs.values())).all():
            text = "the log-likelihood ratio is not finite"
            return self._undecided([Reason("broken_score", text, True), *warnings])
        rejection = Outcome.REJECT
        if evidence is not None:
            costs = self._llr_costs or self.costs
            spoofed = bool(rejected_spoofs(evidence, costs, self.three_way is not None))
            rejection = Outcome.REJECT_SPOOF if spoofed else Outcome.REJECT_SPEAKER
            if float(evidence.familiarity) < UNFAMILIAR:
                warnings = [*warnings, unfamiliar(test.name)]
                if spoofed and not self.given:
                    rejection = Outcome.INCONCLUSIVE
        return self._verdict(score, llrs, warnings, rejection)

    def _evidence(
        self, score: float, enrolment: Sequence[Recording], test: Recording
    ) -> Evidence | None:
        """Return the separate evidence about speaker and spoofing; None if the model has one
        score.
        """
        assert test.vector is not None
        if self.three_way is not None:
            return self.three_way.evidence(score, test.vector, bandwidths_of(enrolment, test))
        if self.three_class is not None and self.scoring.cohort is None:
            return self.three_class.evidence(score, test.vector)
        return None

    def _llr(
        self, score: float, enrolments: int, test: Recording, evidence: Evidence | None
    ) -> float | None:
        """Return the log-likelihood ratio of a trial; None if the model does not compute one."""
        assert test.vector is not None
        costs = self._llr_costs
        if evidence is not None and costs is not None and self._by_evidence is not None:
            return float(evidence.llr(costs.spoof_share))
        if self.calibration is None:
            return None
        measures = quality_measures(
            np.array([test.seconds]), np.array([enrolments]), test.vector[None]
        )
        return float(self.calibration({SCORE: np.array([score])} | measures)[0])

    def _verdict(
        self,
        score: float,
        llrs: dict[str, float],
        warnings: Sequence[Reason],
        rejection: Outcome,
    ) -> Decision:
        """Return the decision for a finite score; ``rejection`` is the outcome if the trial is not
        accepted.
        """
        costs = self._llr_costs
        if llrs and not self.given:
            assert costs is not None
            bound = costs.bayes_threshold
            accepted = llrs[SASV] >= bound
            llr = llrs[SASV]
            compared = f"log-likelihood ratio {llr:.2f} {'>=' if accepted else '<'} {bound:.2f}"
            if SPOOF in llrs:
                compared += f" (speaker {llrs[SPEAKER]:.2f}, bona fide speech {llrs[SPOOF]:.2f})"
        else:
            assert self.threshold is not None
            accepted = score >= self.threshold
            compared = f"score {score:.4f} {'>=' if accepted else '<'} {self.threshold:.4f}"
        why = Reason("above_threshold" if accepted else "below_threshold", compared)
        return Decision(
            outcome=Outcome.ACCEPT if accepted else rejection,
            scores={SASV: score},
            llrs=llrs,
            reasons=(why, *warnings),
            **self._bounds(),
        )

    def _undecided(self, reasons: Sequence[Reason]) -> Decision:
        return Decision(outcome=Outcome.INCONCLUSIVE, reasons=tuple(reasons), **self._bounds())

    def _bounds(self) -> dict[str, Any]:
        """Return the values that a decision records about its thresholds."""
        bounds: dict[str, Any] = {"threshold_source": self.threshold_source}
        if self.threshold is not None:
            bounds["thresholds"] = {SASV: self.threshold}
        costs = self._llr_costs
        if self._by_evidence is not None and not self.given:
            # A threshold in the checkpoint would apply to cosines, which do not decide here.
            assert costs is not None
            made = "three-class loss"
            if self.three_way is not None:
                made = f"three-way calibration on {self.three_way.calibration.source}"
            bounds = {"threshold_source": f"{made}; costs {costs.describe()}"}
        if costs is not None:
            bounds["llr_thresholds"] = {SASV: costs.bayes_threshold}
            bounds["costs"] = costs.describe()
        return bounds
