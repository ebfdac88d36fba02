"""Verification without PyTorch: runs exported models with ONNX Runtime."""

from typing import TYPE_CHECKING

from sasv.core.lazy import lazily

if TYPE_CHECKING:
    from sasv.runtime.verifier import Candidate, Stream, Verifier, Voiceprint

__all__ = ["Candidate", "Stream", "Verifier", "Voiceprint"]


__getattr__ = lazily(__name__, {"verifier": __all__})
