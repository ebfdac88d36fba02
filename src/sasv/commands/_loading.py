"""Loads models for commands that accept both checkpoints and exported models."""

from dataclasses import replace

from sasv.audio import check_channel
from sasv.core.errors import SasvError
from sasv.runtime.embedder import Embedder
from sasv.runtime.model import SUFFIX, OnnxModel


def load_any(path: str, device: str, channel: str) -> Embedder:
    """Load a checkpoint, which needs PyTorch, or an exported model, which needs ONNX Runtime. The
    model reads the given channel of recordings.

    Raises:
        SasvError: the model or the package that runs it is missing, or there is no such channel.
    """
    check_channel(channel)
    model = OnnxModel(path) if path.endswith(SUFFIX) else _checkpoint(path, device)
    model.extraction = replace(model.extraction, channel=channel)
    return model


def _checkpoint(path: str, device: str) -> Embedder:
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
