"""The raw waveform, for networks that begin with convolutions over samples."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from sasv.core.options import Range
from sasv.frontends.base import Frontend, FrontendOptions, Samples
from sasv.frontends.masks import frame_mask, keep, masked_mean, masked_variance

NORMALISE_EPSILON = 1e-7


@dataclass(frozen=True)
class WaveformOptions(FrontendOptions):
    """Options of the raw waveform.

    Attributes:
        normalise: whether each waveform is normalised to mean 0 and variance 1, as in the feature
            extractors of most self-supervised models.
        sample_rate: sample rate in Hz.
    """

    normalise: bool = False
    sample_rate: Annotated[int, Range(1000, 1_000_000)] = 16000


class Waveform(Frontend):
    """Returns waveforms (batch, samples) as features (batch, 1, samples), one frame per sample."""

    name = "waveform"
    Options = WaveformOptions
    options: WaveformOptions
    feature_size = 1

    def __init__(self, options: WaveformOptions | None = None) -> None:
        super().__init__(options)
        self.sample_rate = self.options.sample_rate
        self.min_samples = self.sample_rate // 10

    def frames(self, samples: Samples) -> Samples:
        """Return the number of samples, since each sample is a frame."""
        return samples

    def forward(self, waves: Tensor, lengths: Tensor | None = None) -> Tensor:
        with torch.no_grad(), torch.autocast(waves.device.type, enabled=False):
            x = self.precise(waves)[:, None]
            mask = None if lengths is None else frame_mask(lengths, x.shape[2])
            x = keep(x, mask)
            if self.options.normalise:
                deviation = (masked_variance(x, mask, correction=0) + NORMALISE_EPSILON).sqrt()
                x = (x - masked_mean(x, mask)) / deviation
            return keep(x, mask).float()
