"""Computes decisions from embeddings with NumPy only, so that a server does not need PyTorch."""

from sasv.decision.outcome import Decision, Outcome, Reason
from sasv.decision.recording import ANY_SPEECH, Recording, SpeechLimits
from sasv.decision.three_way import CalibratedHead, detect_spoof, outcomes
from sasv.decision.verifier import Verifier

__all__ = [
    "ANY_SPEECH",
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
