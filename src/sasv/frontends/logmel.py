"""The log-mel front-end of the published system.

It uses pre-emphasis 0.97, n_fft 512, a periodic Hamming window of 400 samples, hop 160, 80 HTK mel
bands from 20 to 7600 Hz, the natural logarithm, and subtracts the mean over time from each band. It
always computes without gradients. The state-dict keys are the published ones (``torchfbank.*``).
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sasv.core.options import Range
from sasv.frontends.base import Frontend, FrontendOptions, Samples
from sasv.frontends.masks import frame_mask, keep, masked_mean, masked_variance
from sasv.frontends.spectrum import PowerSpectrum

SAMPLE_RATE = 16000
N_FFT = 512
WINDOW = 400
HOP = 160
MELS = 80
LOW_HZ = 20.0
HIGH_HZ = 7600.0
LOG_FLOOR = 1e-6
PRE_EMPHASIS = 0.97
NORMALISE_EPSILON = 1e-6
MIN_SAMPLES = 1600
"""Length of the shortest waveform in samples (0.1 s)."""


@dataclass(frozen=True)
class LogMelOptions(FrontendOptions):
    """Options of the log-mel front-end.

    Attributes:
        mels: number of mel bands.
        hop: distance between the starts of successive frames in samples.
        normalise: whether each waveform is first normalised to mean 0 and variance 1.
    """

    mels: Annotated[int, Range(1, 1000)] = MELS
    hop: Annotated[int, Range(16, WINDOW)] = HOP
    normalise: bool = False


def hertz_to_mel(hertz: float) -> float:
    """Convert a frequency in Hz to mels on the HTK mel scale."""
    return 2595.0 * math.log10(1.0 + hertz / 700.0)


def mel_filters(mels: int = MELS, rate: int = SAMPLE_RATE) -> Tensor:
    """Return triangular HTK mel filters of shape (n_fft // 2 + 1, mels), with a peak of 1 and
    without area normalisation.
    """
    bins = torch.linspace(0, rate // 2, N_FFT // 2 + 1)
    points = torch.linspace(hertz_to_mel(LOW_HZ), hertz_to_mel(HIGH_HZ), mels + 2)
    edges = 700.0 * (10.0 ** (points / 2595.0) - 1.0)
    widths = edges[1:] - edges[:-1]
    slopes = edges[None, :] - bins[:, None]
    rising = -slopes[:, :-2] / widths[:-1]
    falling = slopes[:, 2:] / widths[1:]
    return torch.clamp(torch.minimum(rising, falling), min=0)


class _PreEmphasis(nn.Module):
    """Computes y[n] = x[n] - 0.97 x[n-1], with x[-1] = x[1] (reflection)."""

    flipped_filter: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("flipped_filter", torch.tensor([[[-PRE_EMPHASIS, 1.0]]]))

    def forward(self, waves: Tensor) -> Tensor:
        padded = F.pad(waves[:, None], (1, 0), "reflect")[:, 0]
        before, here = self.flipped_filter[0, 0].unbind()
        return here * padded[:, 1:] + before * padded[:, :-1]


class _Spectrogram(nn.Module):
    """Computes the power spectrogram (batch, frames, n_fft // 2 + 1) of padded waveforms (batch,
    samples).
    """

    window: Tensor

    def __init__(self, hop: int) -> None:
        super().__init__()
        self.hop = hop
        self.register_buffer("window", torch.hamming_window(WINDOW))
        self.spectrum = PowerSpectrum(WINDOW, N_FFT)

    def forward(self, padded: Tensor) -> Tensor:
        edge = (N_FFT - WINDOW) // 2  # the window is centred in the transform
        frames = padded[:, edge : padded.shape[1] - edge].unfold(1, WINDOW, self.hop)
        power: Tensor = self.spectrum(frames * self.window)
        return power


class _MelScale(nn.Module):
    fb: Tensor

    def __init__(self, mels: int) -> None:
        super().__init__()
        self.register_buffer("fb", mel_filters(mels))


class _MelSpectrogram(nn.Module):
    """Power spectrogram, centred and reflect-padded at the end of each waveform, and mel bands."""

    def __init__(self, mels: int, hop: int) -> None:
        super().__init__()
        self.spectrogram = _Spectrogram(hop)
        self.mel_scale = _MelScale(mels)

    def forward(self, waves: Tensor, lengths: Tensor | None) -> Tensor:
        half = N_FFT // 2
        if lengths is None:
            padded = F.pad(waves[:, None], (half, half), "reflect")[:, 0]
        else:
            last = (lengths - 1)[:, None]
            at = torch.arange(-half, waves.shape[1] + half, device=waves.device).abs()[None, :]
            at = torch.where(at > last, 2 * last - at, at).clamp(min=0)
            padded = torch.gather(waves, 1, at)
        power = self.spectrogram(padded)
        return torch.matmul(power, self.mel_scale.fb.to(power.dtype)).transpose(1, 2)


def normalised(waves: Tensor, lengths: Tensor | None) -> Tensor:
    """Normalise each waveform of (batch, samples) to mean 0 and variance 1."""
    x = waves[:, None]
    mask = None if lengths is None else frame_mask(lengths, x.shape[2])
    deviation = masked_variance(x, mask, correction=0).sqrt()
    return ((x - masked_mean(x, mask)) / (deviation + NORMALISE_EPSILON))[:, 0]


class LogMel(Frontend):
    """Computes log-mel features (batch, mels, samples // hop + 1) from waveforms (batch, samples)
    in [-1, 1] at 16 kHz.
    """

    name = "log-mel"
    Options = LogMelOptions
    sample_rate = SAMPLE_RATE
    min_samples = MIN_SAMPLES

    def __init__(self, options: LogMelOptions | None = None) -> None:
        super().__init__(options)
        self.feature_size = self.options.mels
        # The two parts have numbers as names in published checkpoints.
        self.add_module("0", _PreEmphasis())
        self.add_module("1", _MelSpectrogram(self.feature_size, self.options.hop))

    def frames(self, samples: Samples) -> Samples:
        """Return the number of frames of a waveform with a given number of samples."""
        return samples // self.options.hop + 1

    def forward(self, waves: Tensor, lengths: Tensor | None = None) -> Tensor:
        emphasise = self.get_submodule("0")
        to_mels = self.get_submodule("1")
        with torch.no_grad(), torch.autocast(waves.device.type, enabled=False):
            waves = self.precise(waves)
            if self.options.normalise:
                waves = normalised(waves, lengths)
            bands = torch.log(to_mels(emphasise(waves), lengths) + LOG_FLOOR)
            mask = None
            if lengths is not None:
                mask = frame_mask(self.frames(lengths), bands.shape[2])
            return keep(bands - masked_mean(bands, mask), mask).float()
