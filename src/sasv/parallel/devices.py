"""Where networks compute."""

import torch

from sasv.core.errors import SasvError
from sasv.parallel.environment import launcher


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """Return the wanted device.

    Raises:
        SasvError: the name is no device, sasv does not compute on it, or this machine does not have
            it.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        wanted = torch.device(device)
    except (RuntimeError, ValueError) as error:
        raise SasvError(f"device '{device}': unknown; use cpu, cuda, cuda:0 or auto") from error
    if wanted.type not in ("cpu", "cuda", "mps"):
        raise SasvError(
            f"device '{device}': sasv does not compute there; use cpu, cuda, cuda:0 or auto"
        )
    if wanted.type == "mps" and not torch.backends.mps.is_available():
        raise SasvError(f"device {device}: no Apple GPU here; use --device cpu")
    if wanted.type != "cuda":
        return wanted
    if not torch.cuda.is_available():
        raise SasvError(f"device {device}: no usable GPU here; use --device cpu")
    index = launcher().local_rank if wanted.index is None else wanted.index
    if index >= torch.cuda.device_count():
        raise SasvError(
            f"device cuda:{index}: this machine has {torch.cuda.device_count()} GPUs, from cuda:0"
        )
    return torch.device("cuda", index)
