"""SpecAugment (Park et al., Interspeech 2019), as the published recipe applies it."""

import torch
from torch import Tensor

FRAMES = 10
BANDS = 8
"""Exclusive upper limits of the lengths of the masks."""


def spec_augment(features: Tensor) -> Tensor:
    """Set up to 9 frames and up to 7 bands of each item of (batch, bands, frames) to 0."""
    batch, bands, frames = features.shape
    device = features.device
    for size, limit, shape in (
        (frames, FRAMES, (batch, 1, frames)),
        (bands, BANDS, (batch, bands, 1)),
    ):
        width = torch.randint(0, limit, (batch, 1), device=device)
        start = (torch.rand(batch, 1, device=device) * (size - width).clamp(min=1)).long()
        position = torch.arange(size, device=device)[None, :]
        masked = (position >= start) & (position < start + width)
        features = features.masked_fill(masked.view(shape), 0.0)
    return features
