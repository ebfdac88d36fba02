"""The outcome of a verification, with its reasons."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """The verdict on a recording.

    A model with a single score cannot tell whether the speaker is another one or the speech is
    spoofed, and gives REJECT. A model with separate scores for speaker and spoofing distinguishes
    the two.
    """

    ACCEPT = "accept"
    REJECT = "reject"
    REJECT_SPEAKER = "reject_speaker"
    REJECT_SPOOF = "reject_spoof"
    INCONCLUSIVE = "inconclusive"

    @property
    def decision(self) -> str:
        """The verdict in one of three words: accept, reject or inconclusive."""
        return "reject" if self.value.startswith("reject") else self.value


@dataclass(frozen=True)
class Reason:
    """A reason for a decision, or a warning about it.

    Attributes:
        code: machine-readable code, one of those in docs/verification.md.
        text: one sentence for people that names the recording.
        fatal: whether the recordings must not be compared, so that the outcome is inconclusive.
            Otherwise the reason is a warning or an explanation.
    """

    code: str
    text: str
    fatal: bool = False

    def to_dict(self) -> dict[str, str]:
        """Return the code and the text, as reports and the service give them."""
        return {"code": self.code, "text": self.text}


@dataclass(frozen=True)
class Decision:
    """A verdict with the scores, thresholds, and reasons on which it is based.

    Attributes:
        outcome: the verdict.
        scores: name -> score; ``sasv`` is the score that decides. Empty if nothing was compared.
        llrs: name -> natural log-likelihood ratio, if the model is calibrated.
        thresholds: name -> lowest score that is accepted.
        llr_thresholds: name -> lowest log-likelihood ratio that is accepted.
        threshold_source: data and rule from which the threshold was obtained.
        costs: description of the cost model from which ``llr_thresholds`` follow.
        reasons: reasons and warnings.
    """

    outcome: Outcome
    scores: dict[str, float] = field(default_factory=dict)
    llrs: dict[str, float] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)
    llr_thresholds: dict[str, float] = field(default_factory=dict)
    threshold_source: str = ""
    costs: str = ""
    reasons: tuple[Reason, ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether the recording is accepted. An inconclusive outcome is not an acceptance."""
        return self.outcome is Outcome.ACCEPT

    def to_dict(self) -> dict[str, Any]:
        """Return the decision as JSON values, all of which are finite."""
        values: dict[str, Any] = {
            "decision": self.outcome.decision,
            "outcome": self.outcome.value,
            "score": self.scores.get(SASV),
            "threshold": self.thresholds.get(SASV),
            "threshold_source": self.threshold_source,
        }
        if SASV in self.llrs:
            values |= {
                "llr": self.llrs[SASV],
                "llr_threshold": self.llr_thresholds[SASV],
                "costs": self.costs,
            }
        for name in (SPEAKER, SPOOF):
            if name in self.llrs:
                values[f"{name}_llr"] = self.llrs[name]
        values["reasons"] = [reason.to_dict() for reason in self.reasons]
        return values


SASV = "sasv"
"""Name of the score that decides: high for bona fide speech of the claimed speaker."""

SPEAKER = "speaker"
"""Name of the log-likelihood ratio of the claimed speaker against another one."""

SPOOF = "spoof"
"""Name of the log-likelihood ratio of bona fide against spoofed speech."""
