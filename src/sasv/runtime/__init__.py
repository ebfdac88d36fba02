"""Verification without PyTorch: runs exported models with ONNX Runtime."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sasv.runtime.verifier import Candidate, Stream, Verifier, Voiceprint

__all__ = ["Candidate", "Stream", "Verifier", "Voiceprint"]


def __getattr__(name: str) -> Any:
    """Import the verifier when it is first used."""
    if name in __all__:
        import sasv.runtime.verifier as module

        return getattr(module, name)
    raise AttributeError(f"module 'sasv.runtime' has no attribute '{name}'")
