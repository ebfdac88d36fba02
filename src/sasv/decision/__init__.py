"""From embeddings to a verdict. NumPy only: a server decides without torch."""

from sasv.decision.outcome import Decision, Outcome, Reason
from sasv.decision.recording import Recording, SpeechLimits
from sasv.decision.verifier import Verifier

__all__ = ["Decision", "Outcome", "Reason", "Recording", "SpeechLimits", "Verifier"]
