"""The log-mel filter banks of SpeechBrain (``Fbank`` with its defaults), which its ECAPA-TDNN uses.

The steps are: a centred power spectrum of 400 points (periodic Hamming window of 25 ms every 10 ms,
zero-padded waveform); triangular filters, both sides of which are as wide as the distance to the
next lower band; decibels, limited to at most 80 dB below the loudest band of the waveform; and
subtraction of the mean over time from each band.

Source: ``speechbrain.processing.features`` 1.1 (Ravanelli et al. 2021).
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from sasv.core.options import Range
from sasv.frontends.base import Frontend, FrontendOptions, Samples
from sasv.frontends.masks import frame_mask, keep, masked_mean
from sasv.frontends.spectrum import PowerSpectrum

N_FFT = 400
HOP = 160
LOW_HZ = 0.0
HIGH_HZ = 8000.0
FLOOR = 1e-10
RANGE_DB = 80.0


@dataclass(frozen=True)
class SpeechBrainOptions(FrontendOptions):
    """Options of SpeechBrain's filter banks.

    Attributes:
        mels: number of mel bands.
        subtract_mean: whether the mean over time is subtracted from each band.
    """

    mels: Annotated[int, Range(1, 1000)] = 80
    subtract_mean: bool = True


def mel_filters(mels: int) -> Tensor:
    """Return SpeechBrain's triangular filters, (N_FFT // 2 + 1, mels)."""
    low, high = (2595.0 * math.log10(1.0 + hertz / 700.0) for hertz in (LOW_HZ, HIGH_HZ))
    points = torch.linspace(low, high, mels + 2, dtype=torch.float64)
    hertz = 700.0 * (10.0 ** (points / 2595.0) - 1.0)
    widths = (hertz[1:] - hertz[:-1])[:-1]
    bins = torch.linspace(0.0, HIGH_HZ, N_FFT // 2 + 1, dtype=torch.float64)[:, None]
    distance = (bins - hertz[1:-1]).abs() / widths
    return (1.0 - distance).clamp(min=0).float()


class SpeechBrainFilterBanks(Frontend):
    """Computes mel bands in dB, (batch, mels, samples // 160 + 1), from waveforms (batch, samples)
    in [-1, 1] at 16 kHz.
    """

    name = "speechbrain"
    Options = SpeechBrainOptions
    options: SpeechBrainOptions
    sample_rate = 16000
    min_samples = 1600
    window: Tensor
    filters: Tensor

    def __init__(self, options: SpeechBrainOptions | None = None) -> None:
        super().__init__(options)
        self.feature_size = self.options.mels
        self.spectrum = PowerSpectrum(N_FFT, N_FFT)
        self.register_buffer("window", torch.hamming_window(N_FFT), persistent=False)
        self.register_buffer("filters", mel_filters(self.feature_size), persistent=False)

    def frames(self, samples: Samples) -> Samples:
        """Return the number of frames of a waveform with a given number of samples."""
        return samples // HOP + 1

    def forward(self, waves: Tensor, lengths: Tensor | None = None) -> Tensor:
        with torch.no_grad(), torch.autocast(waves.device.type, enabled=False):
            if lengths is not None:
                waves = keep(waves[:, None], frame_mask(lengths, waves.shape[1]))[:, 0]
            padded = F.pad(self.precise(waves), (N_FFT // 2, N_FFT // 2))
            power = self.spectrum(padded.unfold(1, N_FFT, HOP) * self.window)
            energies = torch.matmul(power, self.filters.to(power.dtype))
            bands = 10.0 * energies.clamp(min=FLOOR).log10().transpose(1, 2)
            mask = None
            if lengths is not None:
                mask = frame_mask(self.frames(lengths), bands.shape[2])
            loudest = keep(bands, mask, -math.inf).amax(dim=(1, 2), keepdim=True)
            bands = torch.maximum(bands, loudest - RANGE_DB)
            if self.options.subtract_mean:
                bands = bands - masked_mean(bands, mask)
            return keep(bands, mask).float()
