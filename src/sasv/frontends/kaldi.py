"""Kaldi's log-mel filter banks, which WeSpeaker, 3D-Speaker, and most public speaker encoders use.

Each frame is processed separately: its mean is subtracted, and it is pre-emphasised and multiplied
by a window. The power spectrum, triangular filters of peak 1 on Kaldi's mel scale
(1127 ln(1 + f / 700)), and the natural logarithm follow. The defaults are Kaldi's with 80 bands.
There is no dither, so that a waveform always has the same features.

Source: ``feat/feature-window.cc`` and ``feat/mel-computations.cc`` of Kaldi (Povey et al. 2011).
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from sasv.core.errors import SasvError
from sasv.core.options import PositiveFloat, Range
from sasv.frontends.base import Frontend, FrontendOptions, Samples
from sasv.frontends.masks import frame_mask, keep, masked_mean, masked_variance
from sasv.frontends.spectrum import PowerSpectrum

FLOAT_EPSILON = 1.1920929e-07
"""Kaldi's lower limit of the energies before the logarithm."""
VARIANCE_EPSILON = 1e-7


@dataclass(frozen=True)
class KaldiOptions(FrontendOptions):
    """Options of Kaldi's filter banks.

    Attributes:
        mels: number of mel bands.
        window: shape of the window.
        scale: factor by which the samples, which are in [-1, 1], are multiplied: 32768 for models
            trained on 16-bit integers.
        low_hz: lower edge of the lowest band in Hz.
        high_hz: upper edge of the highest band in Hz; a value of zero or less is added to half the
            sample rate.
        pre_emphasis: coefficient of the pre-emphasis.
        remove_dc: whether the mean of each frame is subtracted.
        snip_edges: whether only frames that are completely inside the waveform are used. Otherwise
            there is one frame for each shift, and the waveform is mirrored at both ends.
        log_floor: minimum energy before the logarithm.
        subtract_mean: whether the mean over time is subtracted from each band.
        normalise_variance: whether each band is divided by its standard deviation over time, as
            w2v-BERT 2.0 expects.
        frame_length_ms: length of a frame in milliseconds.
        frame_shift_ms: distance between the starts of successive frames in milliseconds.
        sample_rate: sample rate in Hz.
    """

    mels: Annotated[int, Range(1, 1000)] = 80
    window: Literal["povey", "hamming", "hanning", "rectangular", "blackman"] = "povey"
    scale: PositiveFloat = 1.0
    low_hz: Annotated[float, Range(0)] = 20.0
    high_hz: float = 0.0
    pre_emphasis: Annotated[float, Range(0, 1)] = 0.97
    remove_dc: bool = True
    snip_edges: bool = True
    log_floor: PositiveFloat = FLOAT_EPSILON
    subtract_mean: bool = True
    normalise_variance: bool = False
    frame_length_ms: Annotated[float, Range(1, 1000)] = 25.0
    frame_shift_ms: Annotated[float, Range(1, 1000)] = 10.0
    sample_rate: Annotated[int, Range(1000, 1_000_000)] = 16000

    def __post_init__(self) -> None:
        if not self.low_hz < self.top_hz <= self.sample_rate / 2:
            raise SasvError(
                f"bands from {self.low_hz:g} to {self.top_hz:g} Hz: low_hz must be below high_hz, "
                "and both below half "
                f"the sample rate ({self.sample_rate / 2:g} Hz)"
            )

    @property
    def top_hz(self) -> float:
        """Upper edge of the highest band in Hz."""
        return self.high_hz if self.high_hz > 0 else self.sample_rate / 2 + self.high_hz

    @property
    def length(self) -> int:
        """Length of a frame in samples."""
        return int(self.sample_rate * self.frame_length_ms / 1000)

    @property
    def shift(self) -> int:
        """Distance between the starts of successive frames in samples."""
        return int(self.sample_rate * self.frame_shift_ms / 1000)

    @property
    def n_fft(self) -> int:
        """Length of the FFT: the smallest power of two that is at least the length of a frame."""
        return 1 << (self.length - 1).bit_length()


def window_function(name: str, length: int) -> Tensor:
    """Return one of Kaldi's windows, which are symmetric: (length,)."""
    phase = torch.arange(length, dtype=torch.float64) * (2 * math.pi / (length - 1))
    if name == "hamming":
        window = 0.54 - 0.46 * torch.cos(phase)
    elif name == "hanning":
        window = 0.5 - 0.5 * torch.cos(phase)
    elif name == "povey":
        window = (0.5 - 0.5 * torch.cos(phase)) ** 0.85
    elif name == "blackman":
        window = 0.42 - 0.5 * torch.cos(phase) + 0.08 * torch.cos(2 * phase)
    else:
        window = torch.ones(length, dtype=torch.float64)
    return window.float()


def hertz_to_mel(hertz: float) -> float:
    """Convert a frequency in Hz to mels on Kaldi's mel scale."""
    return 1127.0 * math.log1p(hertz / 700.0)


def mel_filters(options: KaldiOptions) -> Tensor:
    """Return the filters, (n_fft // 2 + 1, mels), which are triangles on the mel scale."""
    low = hertz_to_mel(options.low_hz)
    high = hertz_to_mel(options.top_hz)
    points = torch.linspace(low, high, options.mels + 2, dtype=torch.float64)
    spacing = options.sample_rate / options.n_fft
    bins = [hertz_to_mel(number * spacing) for number in range(options.n_fft // 2 + 1)]
    at = torch.tensor(bins, dtype=torch.float64, device=points.device)[:, None]
    rising = (at - points[:-2]) / (points[1:-1] - points[:-2])
    falling = (points[2:] - at) / (points[2:] - points[1:-1])
    filters = torch.minimum(rising, falling).clamp(min=0)
    filters[-1] = 0  # Kaldi leaves out the bin at half the sample rate
    return filters.float()


class KaldiFilterBanks(Frontend):
    """Computes log-mel features (batch, mels, frames) from waveforms (batch, samples) in [-1,
    1].
    """

    name = "kaldi"
    Options = KaldiOptions
    options: KaldiOptions
    window: Tensor
    filters: Tensor

    def __init__(self, options: KaldiOptions | None = None) -> None:
        super().__init__(options)
        o = self.options
        self.sample_rate = o.sample_rate
        self.feature_size = o.mels
        self.min_samples = max(o.sample_rate // 10, o.length)
        self.spectrum = PowerSpectrum(o.length, o.n_fft)
        self.pre_emphasis = float(np.float32(o.pre_emphasis))  # as the ONNX exporter rounds it
        self.register_buffer("window", window_function(o.window, o.length), persistent=False)
        self.register_buffer("filters", mel_filters(o), persistent=False)

    def frames(self, samples: Samples) -> Samples:
        """Return the number of frames of a waveform with a given number of samples."""
        o = self.options
        if o.snip_edges:
            return (samples - o.length) // o.shift + 1
        return (samples + o.shift // 2) // o.shift

    def forward(self, waves: Tensor, lengths: Tensor | None = None) -> Tensor:
        o = self.options
        with torch.no_grad(), torch.autocast(waves.device.type, enabled=False):
            waves = self.precise(waves) * o.scale
            if not o.snip_edges:
                waves = self._mirrored(waves, lengths)
            frames = waves.unfold(1, o.length, o.shift)
            if o.remove_dc:
                frames = frames - frames.mean(dim=2, keepdim=True)
            if o.pre_emphasis:
                before = torch.cat((frames[..., :1], frames[..., :-1]), dim=2)
                frames = frames - self.pre_emphasis * before
            power = self.spectrum(frames * self.window)
            energies = torch.matmul(power, self.filters.to(power.dtype))
            bands = energies.clamp(min=o.log_floor).log().transpose(1, 2)
            mask = None
            if lengths is not None:
                mask = frame_mask(self.frames(lengths), bands.shape[2])
            if o.subtract_mean:
                bands = bands - masked_mean(bands, mask)
            if o.normalise_variance:
                bands = bands / (masked_variance(bands, mask) + VARIANCE_EPSILON).sqrt()
            return keep(bands, mask).float()

    def _mirrored(self, waves: Tensor, lengths: Tensor | None) -> Tensor:
        """Extend each waveform at both ends by its mirror image. As in Kaldi, the sample at the end
        is repeated.
        """
        o = self.options
        samples = waves.shape[1]
        start = o.shift // 2 - o.length // 2
        end = start + (self.frames(samples) - 1) * o.shift + o.length
        size = (
            torch.full((1, 1), samples, device=waves.device)
            if lengths is None
            else lengths[:, None]
        )
        # A waveform followed by its mirror image has a period of twice its length.
        at = torch.remainder(torch.arange(start, end, device=waves.device)[None, :], 2 * size)
        at = torch.where(at >= size, 2 * size - 1 - at, at)
        return torch.gather(waves, 1, at.expand(waves.shape[0], -1))
