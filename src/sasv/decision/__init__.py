"""From embeddings to a verdict. NumPy only: a server decides without torch."""

from sasv.decision.outcome import Decision, Outcome, Reason
from sasv.decision.recording import Recording, SpeechLimits
from sasv.decision.three_way import CalibratedHead, detect_spoof, outcomes
from sasv.decision.verifier import Verifier

__all__ = [
    "CalibratedHead",
    "Decision",
    "Outcome",
    "Reason",
    "Recording",
    "SpeechLimits",
    "Verifier",
    "detect_spoof",
    "outcomes",
]
