"""Stores the weights of a checkpoint as 8-bit integers. They are for storage only: computations
remain in single precision.
"""

import torch
from torch import Tensor

from sasv.core.errors import CheckpointError

SCALE = ".scale"
"""Suffix of the entry that contains the scales of another entry."""
LARGEST = 127


def large(entries: dict[str, Tensor]) -> list[str]:
    """Return the names of the matrices and kernels. Normalisation layers and the fixed front-end
    are not among them and keep their precision.
    """
    return [name for name, value in entries.items() if value.ndim > 1 and "torchfbank" not in name]


def quantised(entries: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the entries with matrices and kernels as int8, rounded to multiples of one scale for
    each output channel. The scales, (output channels,), are entries as well.
    """
    found = dict(entries)
    for name in large(entries):
        weight = entries[name].float()
        rows = weight.flatten(1)
        scale = rows.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / LARGEST
        found[name] = (rows / scale[:, None]).round().to(torch.int8).view_as(weight)
        found[name + SCALE] = scale
    return found


def is_quantised(entries: dict[str, Tensor]) -> bool:
    """Whether some of the entries are stored as int8."""
    return any(value.dtype == torch.int8 for value in entries.values())


def dequantised(name: str, entries: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the entries that ``quantised`` returned in single precision.

    Args:
        name: the file, for messages.
        entries: name -> tensor.

    Raises:
        CheckpointError: the scales of an entry are missing or do not fit it.
    """
    found = dict(entries)
    for key, value in entries.items():
        if value.dtype != torch.int8:
            continue
        scale = found.pop(key + SCALE, None)
        if scale is None or value.ndim < 2 or scale.shape != value.shape[:1]:
            raise CheckpointError(
                f"{name}: the scales of the 8-bit weights {key} are missing or do not fit them; "
                "convert or download the model again"
            )
        found[key] = (value.flatten(1).float() * scale.float()[:, None]).view(value.shape)
    return found
