"""Decisions between the three classes of trials, based on two log-likelihood ratios, costs, and
priors.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sasv.calibration import ThreeWay
from sasv.core.errors import SasvError
from sasv.core.part_options import checked
from sasv.decision.outcome import Outcome, Reason
from sasv.decision.recording import Recording, SpeechLimits
from sasv.metrics import CostModel
from sasv.scores.quality import Bandwidths
from sasv.scores.spoofing import Evidence, SpoofHead

BONA_FIDE = "bonafide"
SPOOFED = "spoof"
UNFAMILIAR = 0.5
"""Below this familiarity a recording is never rejected as a spoof; the verdict is inconclusive."""


@dataclass(frozen=True)
class CalibratedHead:
    """A spoof head with the calibration of its score and of the speaker score.

    Attributes:
        head: computes the ``cm_score`` of the test recording.
        calibration: calibration of both scores.
    """

    head: SpoofHead
    calibration: ThreeWay

    @classmethod
    def from_record(cls, record: Mapping[str, Any] | None) -> "CalibratedHead | None":
        """Make a calibrated head from the result of ``to_record``; return None for None.

        Raises:
            SasvError: the record is damaged.
        """
        if record is None:
            return None
        values = dict(record)
        head = values.pop("head", None)
        hint = dict[str, Any]
        parts = checked(head, hint, "the spoof head of the three-way calibration")
        weight = checked(parts.get("weight"), list[float], "the weight of the spoof head")
        bias = checked(parts.get("bias"), float, "the bias of the spoof head")
        return cls(SpoofHead(np.array(weight), bias), ThreeWay.from_dict(values))

    def to_record(self) -> dict[str, Any]:
        """Return the record for a specification, as JSON values. It contains the head as well, so
        that decisions are possible with every implementation of the network.
        """
        head = {"weight": self.head.weight.tolist(), "bias": float(self.head.bias)}
        return self.calibration.to_dict() | {"head": head}

    def evidence(
        self, score: float, test: np.ndarray, bandwidths: Bandwidths | None = None
    ) -> Evidence:
        """Return the log-likelihood ratios of a trial.

        Args:
            score: speaker score of the trial.
            test: (dimension,), raw embedding of the test recording.
            bandwidths: of the test recording and of the enrolment; None takes both for wide-band
                speech.
        """
        cm_score = self.head.scores(test)
        norm = np.asarray(np.linalg.norm(test))
        return self.calibration(np.array(score), cm_score, norm, bandwidths)


def rejected_spoofs(evidence: Evidence, costs: CostModel, alone: bool = True) -> np.ndarray:
    """Return whether each trial, if rejected, counts as a spoof rather than as another speaker: if
    its acceptance as a spoof would have the higher expected cost, or if the recording alone is
    taken for a spoof.

    Another speaker's claim is bona fide speech, so that a recording which is not cannot be one,
    however little it resembles the claimed speaker; ``detect_spoof`` says the same of it.

    Args:
        evidence: about the trials.
        costs: of both errors.
        alone: whether the evidence about spoofing is that of the recording, whatever the claim.
    """
    other, spoof = evidence.against(costs.spoof_share)
    familiar = np.asarray(evidence.familiarity) >= UNFAMILIAR
    found: np.ndarray = np.asarray(spoof > other)
    if alone and costs.weights[2]:
        detected = np.asarray(evidence.spoof) < min(0.0, spoof_threshold(costs))
        found = found | (detected & familiar)
    return found


def outcomes(evidence: Evidence, costs: CostModel) -> list[Outcome]:
    """Return the verdict on each trial. It is accepted at the Bayes threshold of the costs.
    Otherwise it is rejected as a spoof or as another speaker (see ``rejected_spoofs``). Instead of
    a spoof, the outcome is inconclusive if the recording is unlike those of the calibration.
    """
    accepted = evidence.llr(costs.spoof_share) >= costs.bayes_threshold
    spoofed = rejected_spoofs(evidence, costs)
    unfamiliar = evidence.familiarity < UNFAMILIAR
    found = np.where(spoofed, Outcome.REJECT_SPOOF, Outcome.REJECT_SPEAKER)
    found = np.where(spoofed & unfamiliar, Outcome.INCONCLUSIVE, found)
    return [Outcome(name) for name in np.where(accepted, Outcome.ACCEPT, found).tolist()]


def detect_spoof(
    head: CalibratedHead, recording: Recording, limits: SpeechLimits, costs: CostModel
) -> dict[str, Any]:
    """Decide whether a recording is bona fide speech; return JSON values.

    The outcome is ``bonafide``, ``spoof``, or, if the recording contains too little speech or is
    unlike those with which the spoof score was calibrated, ``inconclusive``.

    Args:
        head: the spoof head and its calibration.
        recording: the recording.
        limits: the requirements for the recording.
        costs: priors and costs of a miss of bona fide speech and of an accepted spoof.
    """
    reasons = limits.faults(recording)
    values: dict[str, Any] = {
        "outcome": Outcome.INCONCLUSIVE.value,
        "spoof_llr": None,
        "llr_threshold": spoof_threshold(costs),
        "costs": costs.describe(),
    }
    if not reasons:
        assert recording.vector is not None
        evidence = head.evidence(0.0, recording.vector)
        llr = float(evidence.spoof)
        if not np.isfinite(llr):
            reasons = [Reason("broken_score", "the log-likelihood ratio is not finite", True)]
        else:
            values["spoof_llr"] = llr
            if float(evidence.familiarity) < UNFAMILIAR:
                reasons = [unfamiliar(recording.name)]
            else:
                accepted = llr >= values["llr_threshold"]
                values["outcome"] = BONA_FIDE if accepted else SPOOFED
    values["reasons"] = [reason.to_dict() for reason in reasons]
    return values


def spoof_threshold(costs: CostModel) -> float:
    """Return the Bayes threshold of a spoof LLR.

    Raises:
        SasvError: the acceptance of spoofs has no cost.
    """
    target, _, spoof = costs.weights
    if not spoof:
        raise SasvError(
            f"cost model {costs.name}: accepted spoofs cost nothing; use another cost model"
        )
    return float(np.log(spoof / target))


def unfamiliar(name: str) -> Reason:
    """Return the reason for a recording that is unlike those of the calibration."""
    text = (
        f"{name}: unlike the recordings on which the spoof score was calibrated, so the score is "
        "not reliable for it"
    )
    return Reason("unfamiliar_recording", text)
