"""The log-mel front-end of Whisper (Radford et al. 2022), for waveforms of any length up to 30 s.

The steps are: a centred power spectrum of 400 points (periodic Hann window of 25 ms every 10 ms);
mel bands of equal area on Slaney's scale; the decimal logarithm, limited to at most 8 (80 dB) below
the loudest band; and (x + 4) / 4. Whisper itself pads each waveform to 30 s with silence; here the
waveform keeps its length.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from sasv.core.options import Range
from sasv.frontends.base import Frontend, FrontendOptions, Samples
from sasv.frontends.masks import frame_mask, keep
from sasv.frontends.spectrum import PowerSpectrum

N_FFT = 400
HOP = 160
RATE = 16000
FLOOR = 1e-10
RANGE = 8.0
LINEAR_HZ = 200.0 / 3
"""Hz per mel below 1 kHz on Slaney's scale."""
BREAK_HZ = 1000.0
BREAK_MEL = 15.0
LOG_STEP = math.log(6.4) / 27
"""Logarithm of the ratio of two frequencies that differ by one mel, above 1 kHz."""


@dataclass(frozen=True)
class WhisperOptions(FrontendOptions):
    """Options of Whisper's front-end.

    Attributes:
        mels: number of mel bands: 80, or 128 for large-v3.
    """

    mels: Annotated[int, Range(1, 1000)] = 80


def mel_filters(mels: int) -> Tensor:
    """Return triangular filters of equal area on Slaney's mel scale, (N_FFT // 2 + 1, mels)."""
    top = BREAK_MEL + math.log(RATE / 2 / BREAK_HZ) / LOG_STEP
    points = torch.linspace(0.0, top, mels + 2, dtype=torch.float64)
    above = BREAK_HZ * torch.exp(LOG_STEP * (points - BREAK_MEL))
    hertz = torch.where(points < BREAK_MEL, LINEAR_HZ * points, above)
    bins = torch.linspace(0.0, RATE / 2, N_FFT // 2 + 1, dtype=torch.float64)[:, None]
    rising = (bins - hertz[:-2]) / (hertz[1:-1] - hertz[:-2])
    falling = (hertz[2:] - bins) / (hertz[2:] - hertz[1:-1])
    filters = torch.minimum(rising, falling).clamp(min=0)
    return (filters * (2.0 / (hertz[2:] - hertz[:-2]))).float()


class WhisperLogMel(Frontend):
    """Computes log-mel features (batch, mels, samples // 160) from waveforms (batch, samples) in
    [-1, 1] at 16 kHz.
    """

    name = "whisper"
    Options = WhisperOptions
    options: WhisperOptions
    sample_rate = RATE
    min_samples = RATE // 10
    window: Tensor
    filters: Tensor

    def __init__(self, options: WhisperOptions | None = None) -> None:
        super().__init__(options)
        self.feature_size = self.options.mels
        self.spectrum = PowerSpectrum(N_FFT, N_FFT)
        self.register_buffer("window", torch.hann_window(N_FFT), persistent=False)
        self.register_buffer("filters", mel_filters(self.feature_size), persistent=False)

    def frames(self, samples: Samples) -> Samples:
        """Return the number of frames of a waveform with a given number of samples."""
        return samples // HOP

    def forward(self, waves: Tensor, lengths: Tensor | None = None) -> Tensor:
        with torch.no_grad(), torch.autocast(waves.device.type, enabled=False):
            padded = self._mirrored(self.precise(waves), lengths)
            power = self.spectrum(padded.unfold(1, N_FFT, HOP) * self.window)[:, :-1]
            energies = torch.matmul(power, self.filters.to(power.dtype))
            bands = energies.clamp(min=FLOOR).log10().transpose(1, 2)
            mask = None
            if lengths is not None:
                mask = frame_mask(self.frames(lengths), bands.shape[2])
            loudest = keep(bands, mask, -math.inf).amax(dim=(1, 2), keepdim=True)
            return keep((torch.maximum(bands, loudest - RANGE) + 4.0) / 4.0, mask).float()

    def _mirrored(self, waves: Tensor, lengths: Tensor | None) -> Tensor:
        """Extend each waveform at both ends by half a window of its mirror image."""
        half = N_FFT // 2
        last = waves.shape[1] - 1 if lengths is None else (lengths - 1)[:, None]
        at = torch.arange(-half, waves.shape[1] + half, device=waves.device).abs()[None, :]
        at = torch.where(at > last, 2 * last - at, at).clamp(min=0)
        return torch.gather(waves, 1, at.expand(waves.shape[0], -1))
