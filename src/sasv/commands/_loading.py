"""Models of commands that take a checkpoint or an exported model."""

from sasv.runtime.embedder import Embedder
from sasv.runtime.model import SUFFIX, OnnxModel


def load_any(path: str, device: str) -> Embedder:
    """Load a checkpoint, which takes PyTorch, or an exported model, which takes ONNX Runtime."""
    if path.endswith(SUFFIX):
        return OnnxModel(path)
    from sasv.embeddings.model import load_model

    return load_model(path, device)
