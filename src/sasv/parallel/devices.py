"""Where networks compute."""

import torch

from sasv.core.errors import SasvError
from sasv.parallel.environment import launcher


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """Return the wanted device; SasvError where it is not there."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise SasvError(f"device '{device}': unknown; use cpu, cuda, cuda:0 or auto") from error
    if wanted.type == "cuda" and not torch.cuda.is_available():
        raise SasvError(f"device {device}: no usable GPU here; use --device cpu")
    if wanted.type == "cuda" and wanted.index is None:
        return torch.device("cuda", launcher().local_rank)
    return wanted
