"""Spoofing-aware speaker verification.

``sasv.load_model(path)`` returns a model whose ``embed(path_or_waveform)`` returns the embedding.
Every command of the command line is also a function in ``sasv.commands``.
"""

from typing import TYPE_CHECKING, Any

from sasv.core.errors import MissingExtra, SasvError
from sasv.core.version import __version__

if TYPE_CHECKING:
    from sasv.embeddings.model import Model, load_model

__all__ = ["Model", "SasvError", "__version__", "load_model"]


def __getattr__(name: str) -> Any:
    """Import PyTorch only when ``load_model`` is used."""
    if name in ("Model", "load_model"):
        try:
            import sasv.embeddings.model as module
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            raise MissingExtra("PyTorch", "torch", f"sasv.{name}") from error
        return getattr(module, name)
    raise AttributeError(f"module 'sasv' has no attribute '{name}'")
