"""Masks that exclude padding, so that an utterance has the same embedding in a batch with longer
ones as on its own.

A mask is None where every frame is real (training crops, single utterances), or a boolean tensor of
shape (batch, 1, frames): True where the frame belongs to the utterance, False where it is padding.
Features have time as their last axis: (batch, channels, frames) or (batch, channels, bands,
frames).

A layer that changes the number of frames changes the mask with them: ``convolve`` applies such a
layer and returns both, ``reduced`` returns the mask alone. Every layer that looks at neighbouring
frames (``keep``, ``convolve``), averages or normalises over time (``masked_mean``,
``masked_variance``, ``Segments``) takes the mask; pointwise layers and batch norm in evaluation
mode need none.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Layer = nn.Conv1d | nn.Conv2d | nn.AvgPool1d | nn.AvgPool2d | nn.MaxPool1d | nn.MaxPool2d


def frame_mask(frames: Tensor, length: int) -> Tensor:
    """Return the mask (batch, 1, length) for the frames of each utterance, integers (batch,)."""
    return torch.arange(length, device=frames.device)[None, None, :] < frames[:, None, None]


def fitted(mask: Tensor, x: Tensor) -> Tensor:
    """Return the mask with as many axes as ``x``."""
    return mask.reshape(mask.shape[0], *[1] * (x.dim() - 2), mask.shape[-1])


def keep(x: Tensor, mask: Tensor | None, padding: float = 0.0) -> Tensor:
    """Set the padding to 0: a convolution then sees at an utterance's end what zero padding would
    show it.

    Before a maximum over time ``padding`` is ``-math.inf``, as it is in torch's own max pooling.
    """
    return x if mask is None else torch.where(fitted(mask, x), x, padding)


def reduced(mask: Tensor | None, layer: Layer, axis: int = -1) -> Tensor | None:
    """Return the mask of what a convolution or a pooling layer makes of masked frames.

    Args:
        mask: of what the layer is fed.
        layer: its kernel, stride, padding and dilation are read.
        axis: which of its axes is time.
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
    # A window that goes beyond the end counts, but only where it begins before it.
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
    """Apply a convolution or a pooling layer, padding kept out; return the result and its mask.

    ``axis`` says which axis of the layer is time, which is the last axis of ``x`` all the same.
    """
    padding = -math.inf if isinstance(layer, nn.MaxPool1d | nn.MaxPool2d) else 0.0
    return layer(keep(x, mask, padding)), reduced(mask, layer, axis)


def masked_mean(x: Tensor, mask: Tensor | None, dims: tuple[int, ...] = (-1,)) -> Tensor:
    """Mean over ``dims`` (time, -1, among them) of the real frames, dimensions kept."""
    if mask is None:
        return x.mean(dim=dims, keepdim=True)
    count = fitted(mask, x).sum(dim=-1, keepdim=True) * math.prod(
        x.shape[dim] for dim in dims if dim != -1
    )
    return keep(x, mask).sum(dim=dims, keepdim=True) / count


def masked_variance(x: Tensor, mask: Tensor | None, correction: int = 1) -> Tensor:
    """Variance over time of the real frames, dimension kept; ``correction`` 1 is unbiased."""
    if mask is None:
        return x.var(dim=-1, keepdim=True, correction=correction)
    count = fitted(mask, x).sum(dim=-1, keepdim=True)
    squares = (x - masked_mean(x, mask)).square()
    return keep(squares, mask).sum(dim=-1, keepdim=True) / (count - correction)


class Segments(NamedTuple):
    """Segments of (batch, channels, frames) along time, each of ``size`` frames, the last one
    shorter.

    Attributes:
        size: frames of a segment.
        frames: frames in all.
        counts: real frames of each segment, (1 or batch, 1, segments).
    """

    size: int
    frames: int
    counts: Tensor

    @classmethod
    def of(cls, x: Tensor, mask: Tensor | None, size: int) -> "Segments":
        """Return the segments of ``x``."""
        frames = x.shape[-1]
        if mask is None:
            mask = torch.ones(1, 1, frames, dtype=torch.bool, device=x.device)
        return cls(size, frames, _cut(mask, size).sum(dim=-1))

    def means(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean over all real frames (batch, channels, 1), and those of the segments.

        Args:
            x: with padding set to zero, as ``keep`` does. A segment of padding alone has mean 0.
        """
        sums = _cut(x, self.size).sum(dim=-1)
        whole = sums.sum(dim=-1, keepdim=True) / self.counts.sum(dim=-1, keepdim=True)
        return whole, sums / self.counts.clamp(min=1)

    def spread(self, x: Tensor) -> Tensor:
        """Repeat each value (batch, channels, segments) over the frames of its segment."""
        return x[..., None].expand(*x.shape, self.size).flatten(-2)[..., : self.frames]


def _cut(x: Tensor, size: int) -> Tensor:
    # A whole segment of padding more: with at least two, torch.export fixes no number of segments.
    missing = -x.shape[-1] % size + size
    return F.pad(x, (0, missing)).unflatten(-1, (-1, size))
