"""Masks that exclude padding, so that an utterance has the same embedding in a batch with longer
ones as on its own.

A mask is None if no frame is padding (training crops, single utterances). Otherwise it is a boolean
tensor of shape (batch, 1, frames): True for frames of the utterance, False for padding. Time is the
last axis of features: (batch, channels, frames) or (batch, channels, bands, frames).

A layer that changes the number of frames also changes the mask: ``convolve`` applies such a layer
and returns both, and ``reduced`` returns only the mask. A mask is needed by every layer that sees
neighbouring frames (``keep``, ``convolve``) or that averages or normalises over time
(``masked_mean``, ``masked_variance``, ``Segments``). Pointwise layers and batch norm in evaluation
mode do not need one.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Layer = nn.Conv1d | nn.Conv2d | nn.AvgPool1d | nn.AvgPool2d | nn.MaxPool1d | nn.MaxPool2d


def frame_mask(frames: Tensor, length: int) -> Tensor:
    """Return the mask (batch, 1, length) for numbers of frames (batch,), which are integers."""
    return torch.arange(length, device=frames.device)[None, None, :] < frames[:, None, None]


def fitted(mask: Tensor, x: Tensor) -> Tensor:
    """Return the mask with the number of axes of ``x``."""
    return mask.reshape(mask.shape[0], *[1] * (x.dim() - 2), mask.shape[-1])


def keep(x: Tensor, mask: Tensor | None, padding: float = 0.0) -> Tensor:
    """Set the padding to 0, so that a convolution sees zero padding after the end of each
    utterance.

    Before a maximum over time, use ``padding=-math.inf``, as PyTorch's max pooling does.
    """
    return x if mask is None else torch.where(fitted(mask, x), x, padding)


def reduced(mask: Tensor | None, layer: Layer, axis: int = -1) -> Tensor | None:
    """Return the mask of the output of a convolution or a pooling layer.

    Args:
        mask: mask of the input.
        layer: the layer, whose kernel size, stride, padding and dilation are used.
        axis: the axis of the layer that is time.

    Returns:
        (batch, 1, output frames), or None if ``mask`` is None.
    """
    if mask is None or layer.padding == "same":
        return mask
    kernel = _along(layer.kernel_size, axis)
    stride = _along(layer.stride, axis)
    padding = 0 if layer.padding == "valid" else _along(layer.padding, axis)
    dilation = _along(getattr(layer, "dilation", 1), axis)
    missing = 2 * padding - dilation * (kernel - 1) - 1
    frames = mask[:, 0].sum(dim=1)
    length = mask.shape[2]
    if not getattr(layer, "ceil_mode", False):
        return frame_mask((frames + missing) // stride + 1, (length + missing) // stride + 1)
    # A pooling window that extends beyond the end counts only if it begins before the end.
    most = (frames + padding - 1) // stride + 1
    after = torch.minimum((frames + missing + stride - 1) // stride + 1, most)
    return frame_mask(
        after, min((length + missing + stride - 1) // stride, (length + padding - 1) // stride) + 1
    )


def _along(value: object, axis: int) -> int:
    number = value[axis] if isinstance(value, tuple | list) else value
    assert isinstance(number, int)
    return number


def convolve(
    layer: Layer, x: Tensor, mask: Tensor | None, axis: int = -1
) -> tuple[Tensor, Tensor | None]:
    """Apply a convolution or a pooling layer so that padding has no effect.

    Args:
        layer: the layer.
        x: its input, with time as the last axis.
        mask: mask of the input.
        axis: the axis of the layer that is time.

    Returns:
        The output and its mask.
    """
    padding = -math.inf if isinstance(layer, nn.MaxPool1d | nn.MaxPool2d) else 0.0
    return layer(keep(x, mask, padding)), reduced(mask, layer, axis)


def masked_mean(x: Tensor, mask: Tensor | None, dims: tuple[int, ...] = (-1,)) -> Tensor:
    """Return the mean of the real frames over ``dims``, which include time (-1), with the
    dimensions kept.
    """
    if mask is None:
        return x.mean(dim=dims, keepdim=True)
    count = fitted(mask, x).sum(dim=-1, keepdim=True) * math.prod(
        x.shape[dim] for dim in dims if dim != -1
    )
    return keep(x, mask).sum(dim=dims, keepdim=True) / count


def masked_variance(x: Tensor, mask: Tensor | None, correction: int = 1) -> Tensor:
    """Return the variance of the real frames over time, with the dimension kept; it is unbiased
    with ``correction`` 1.
    """
    if mask is None:
        return x.var(dim=-1, keepdim=True, correction=correction)
    count = fitted(mask, x).sum(dim=-1, keepdim=True)
    squares = (x - masked_mean(x, mask)).square()
    return keep(squares, mask).sum(dim=-1, keepdim=True) / (count - correction)


class Segments(NamedTuple):
    """Division of (batch, channels, frames) into segments of ``size`` frames; the last one may be
    shorter.

    Attributes:
        size: frames per segment.
        frames: total number of frames.
        counts: number of real frames in each segment, (1 or batch, 1, segments).
    """

    size: int
    frames: int
    counts: Tensor

    @classmethod
    def of(cls, x: Tensor, mask: Tensor | None, size: int) -> "Segments":
        """Return the segments of ``x``, (batch, channels, frames)."""
        frames = x.shape[-1]
        if mask is None:
            mask = torch.ones(1, 1, frames, dtype=torch.bool, device=x.device)
        return cls(size, frames, _cut(mask, size).sum(dim=-1))

    def means(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean over all real frames and the mean of each segment.

        Args:
            x: (batch, channels, frames) with the padding set to zero, for instance by ``keep``.

        Returns:
            (batch, channels, 1) and (batch, channels, segments). A segment that consists only of
            padding has mean 0.
        """
        sums = _cut(x, self.size).sum(dim=-1)
        whole = sums.sum(dim=-1, keepdim=True) / self.counts.sum(dim=-1, keepdim=True)
        return whole, sums / self.counts.clamp(min=1)

    def spread(self, x: Tensor) -> Tensor:
        """Repeat values (batch, channels, segments) over the frames of their segments: (batch,
        channels, frames).
        """
        return x[..., None].expand(*x.shape, self.size).flatten(-2)[..., : self.frames]


def _cut(x: Tensor, size: int) -> Tensor:
    # One more segment of padding: with at least two, torch.export does not fix their number.
    missing = -x.shape[-1] % size + size
    return F.pad(x, (0, missing)).unflatten(-1, (-1, size))
