"""Voices that are already enrolled under another name."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sasv.core.errors import SasvError
from sasv.decision import Decision, Verifier
from sasv.decision.outcome import SASV, SPEAKER
from sasv.runtime.verifier import Voiceprint
from sasv.store.record import Stored


@dataclass(frozen=True)
class Duplicate:
    """An enrolled speaker whose voice matches a new voiceprint.

    Attributes:
        speaker: name under which the voice is enrolled.
        id: identifier of the voiceprint.
        score: mean score of the new recordings against the voiceprint.
        llr: mean log-likelihood ratio for the same speaker; None if the model does not compute one.
    """

    speaker: str
    id: str
    score: float
    llr: float | None


class DuplicateVoice(SasvError):
    """A voice is already enrolled under another name.

    Attributes:
        found: the duplicates, the most likely first.
    """

    def __init__(self, speaker: str, found: Sequence[Duplicate]) -> None:
        first = found[0]
        others = "" if len(found) == 1 else f", and {len(found) - 1} more"
        super().__init__(
            f"{speaker}: this voice is already enrolled as {first.speaker} (voiceprint {first.id}, "
            f"score {first.score:.3f}){others}; nothing was stored"
        )
        self.found = tuple(found)


def same_voice(verifier: Verifier, stored: Stored, voiceprint: Voiceprint) -> Duplicate | None:
    """Return the duplicate if the recordings of a voiceprint would, on average, be accepted as the
    stored speaker, or None if not. Whether they are spoofed is ignored.

    Args:
        verifier: verifier of the model that made both.
        stored: the enrolled speaker.
        voiceprint: the new one.
    """
    decisions = [
        verifier.decide(stored.voiceprint.recordings, recording)
        for recording in voiceprint.recordings
    ]
    compared = [one for one in decisions if one.scores]
    if not compared:
        return None
    margin, llrs = zip(*(_margin(one) for one in compared))
    if np.mean(margin) < 0:
        return None
    score = float(np.mean([one.scores[SASV] for one in compared]))
    llr = None if None in llrs else float(np.mean(llrs))
    return Duplicate(stored.speaker, stored.id, score, llr)


def _margin(decision: Decision) -> tuple[float, float | None]:
    """Return by how much a decision exceeds the threshold for the speaker, and its log-likelihood
    ratio.
    """
    llr = decision.llrs.get(SPEAKER, decision.llrs.get(SASV))
    if llr is None or SASV not in decision.llr_thresholds:
        return decision.scores[SASV] - decision.thresholds[SASV], None
    return llr - decision.llr_thresholds[SASV], llr
