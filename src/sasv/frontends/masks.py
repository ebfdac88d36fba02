"""Masks keep padding out, so that a batch of unequal files equals single files.

Everywhere ``mask`` is None (all frames are real: training crops, single files) or a tensor of 1 and 0 whose last
axis is time: (batch, 1, frames), or (batch, 1, 1, frames) for two-dimensional features.
"""

import math

import torch
from torch import Tensor


def frame_mask(lengths: Tensor, frames: int, dtype: torch.dtype) -> Tensor:
    """Return (batch, 1, frames): 1 where the frame belongs to the file, 0 where it is padding."""
    return (torch.arange(frames, device=lengths.device)[None, None, :] < lengths[:, None, None]).to(dtype)


def keep(x: Tensor, mask: Tensor | None) -> Tensor:
    """Zero the padding: a convolution then sees at a file's end what zero padding would show it."""
    return x if mask is None else x * mask


def masked_mean(x: Tensor, mask: Tensor | None, dims: tuple[int, ...] = (-1,)) -> Tensor:
    """Mean over ``dims`` (time, -1, among them) of the real frames, dimensions kept."""
    if mask is None:
        return x.mean(dim=dims, keepdim=True)
    count = mask.sum(dim=-1, keepdim=True) * math.prod(x.shape[dim] for dim in dims if dim != -1)
    return (x * mask).sum(dim=dims, keepdim=True) / count
