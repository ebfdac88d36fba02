"""Loads the model of commands that accept both checkpoints and exported models."""

from sasv.core.errors import SasvError
from sasv.runtime.embedder import Embedder
from sasv.runtime.model import SUFFIX, OnnxModel


def load_any(path: str, device: str) -> Embedder:
    """Load a checkpoint, which takes PyTorch, or an exported model, which takes ONNX Runtime.

    Raises:
        SasvError: the model, or what computes it, is missing.
    """
    if path.endswith(SUFFIX):
        return OnnxModel(path)
    try:
        from sasv.embeddings.model import load_model
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise SasvError(
            f'{path}: a checkpoint needs PyTorch, which is not installed; pip install "sasv[torch]"'
            ", or give an ONNX file that sasv export wrote"
        ) from error
    return load_model(path, device)
