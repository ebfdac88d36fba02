"""From speech to a decision without PyTorch: an exported model, run by ONNX Runtime."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sasv.runtime.verifier import Candidate, Stream, Verifier, Voiceprint

__all__ = ["Candidate", "Stream", "Verifier", "Voiceprint"]


def __getattr__(name: str) -> Any:
    """Import the verifier when it is wanted."""
    if name in __all__:
        import sasv.runtime.verifier as module

        return getattr(module, name)
    raise AttributeError(f"module 'sasv.runtime' has no attribute '{name}'")
