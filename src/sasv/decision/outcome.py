"""The outcome of a verification, with its reasons."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """The verdict on a recording.

    A model with one score cannot tell who is wrong, the speaker or the speech, and says REJECT. A
    model with a score for spoofing beside that for the speaker says which of the two it was.
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
    """Why a decision is what it is, or what to know about it.

    Attributes:
        code: for programs: one of the codes in docs/verification.md.
        text: for people: one sentence that names the recording.
        fatal: nothing may be compared, so the outcome is inconclusive. Otherwise it is a warning or
            an explanation.
    """

    code: str
    text: str
    fatal: bool = False


@dataclass(frozen=True)
class Decision:
    """A verdict with what it rests on.

    Attributes:
        outcome: the verdict.
        scores: name -> score; ``sasv`` is the score that decides. Empty if nothing was compared.
        llrs: name -> log-likelihood ratio, if the model is calibrated.
        thresholds: name -> accepted from this score on.
        llr_thresholds: name -> accepted from this log-likelihood ratio on.
        threshold_source: data and rule that gave the threshold.
        costs: the cost model behind ``llr_thresholds``, in words.
        reasons: why, and what else to know.
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
        """Whether the recording is accepted; everything else, inconclusive included, is not."""
        return self.outcome is Outcome.ACCEPT

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON, all of them finite."""
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
        values["reasons"] = [{"code": reason.code, "text": reason.text} for reason in self.reasons]
        return values


SASV = "sasv"
"""Name of the score that decides: high for bona fide speech of the claimed speaker."""

SPEAKER = "speaker"
"""Name of the log-likelihood ratio of the claimed speaker against another one."""

SPOOF = "spoof"
"""Name of the log-likelihood ratio of bona fide against spoofed speech."""
