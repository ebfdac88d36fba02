"""The log-mel front-end of the published system, and SpecAugment.

Pre-emphasis 0.97, n_fft 512, window 400 (periodic Hamming), hop 160, 80 HTK mel bands from 20 to 7600 Hz, natural
log, mean over time removed per band. Always float32 and without gradient. Entries of the state dict carry the
published names (``torchfbank.*``).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sasv.frontends.masks import frame_mask, masked_mean

N_FFT, WINDOW, HOP, MELS = 512, 400, 160, 80
LOW_HZ, HIGH_HZ = 20.0, 7600.0
LOG_FLOOR = 1e-6
PRE_EMPHASIS = 0.97
TIME_MASK, BAND_MASK = 10, 8
"""SpecAugment masks are shorter than these (frames, bands)."""


def hertz_to_mel(hertz: float) -> float:
    """HTK mel scale."""
    return 2595.0 * math.log10(1.0 + hertz / 700.0)


def mel_filters(mels: int = MELS, rate: int = 16000) -> Tensor:
    """Return triangular HTK mel filters of shape (n_fft // 2 + 1, mels), peaks of 1, no area normalisation."""
    bins = torch.linspace(0, rate // 2, N_FFT // 2 + 1)
    points = torch.linspace(hertz_to_mel(LOW_HZ), hertz_to_mel(HIGH_HZ), mels + 2)
    edges = 700.0 * (10.0 ** (points / 2595.0) - 1.0)
    widths = edges[1:] - edges[:-1]
    slopes = edges[None, :] - bins[:, None]
    rising = -slopes[:, :-2] / widths[:-1]
    falling = slopes[:, 2:] / widths[1:]
    return torch.clamp(torch.minimum(rising, falling), min=0)


class _PreEmphasis(nn.Module):
    """y[n] = x[n] - 0.97 x[n-1], the sample before the first being the second (reflection)."""

    flipped_filter: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("flipped_filter", torch.tensor([[[-PRE_EMPHASIS, 1.0]]]))

    def forward(self, waves: Tensor) -> Tensor:
        padded = F.pad(waves[:, None], (1, 0), "reflect")
        return F.conv1d(padded, self.flipped_filter)[:, 0]


class _Spectrogram(nn.Module):
    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hamming_window(WINDOW))


class _MelScale(nn.Module):
    fb: Tensor

    def __init__(self, mels: int) -> None:
        super().__init__()
        self.register_buffer("fb", mel_filters(mels))


class _MelSpectrogram(nn.Module):
    """Power spectrogram (centred, reflect-padded at each file's own end) and mel bands."""

    def __init__(self, mels: int) -> None:
        super().__init__()
        self.spectrogram = _Spectrogram()
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
        window = self.spectrogram.window
        spectrum = torch.stft(padded, N_FFT, HOP, WINDOW, window, center=False, return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()
        return torch.matmul(power.transpose(1, 2), self.mel_scale.fb).transpose(1, 2)


class LogMel(nn.Sequential):
    """Waveforms (batch, samples) in [-1, 1] at 16 kHz to log-mels (batch, mels, samples // 160 + 1)."""

    def __init__(self, mels: int = MELS) -> None:
        super().__init__(_PreEmphasis(), _MelSpectrogram(mels))

    def forward(self, waves: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the features; frames past the end of a shorter file are zero."""
        with torch.no_grad(), torch.autocast(waves.device.type, enabled=False):
            emphasised = self[0](waves.float())
            bands = torch.log(self[1](emphasised, lengths) + LOG_FLOOR)
            if lengths is None:
                return bands - bands.mean(dim=2, keepdim=True)
            mask = frame_mask(frames_of(lengths), bands.shape[2], bands.dtype)
            return (bands - masked_mean(bands, mask)) * mask


def frames_of(samples: Tensor) -> Tensor:
    """Frames of the log-mel of a file with so many samples."""
    return samples // HOP + 1


def spec_augment(features: Tensor) -> Tensor:
    """Mask up to 9 frames, then up to 7 bands of each (bands, frames) matrix with 0 (published recipe)."""
    batch, bands, frames = features.shape
    device = features.device
    for size, limit, shape in ((frames, TIME_MASK, (batch, 1, frames)), (bands, BAND_MASK, (batch, bands, 1))):
        width = torch.randint(0, limit, (batch, 1), device=device)
        start = (torch.rand(batch, 1, device=device) * (size - width).clamp(min=1)).long()
        position = torch.arange(size, device=device)[None, :]
        masked = (position >= start) & (position < start + width)
        features = features.masked_fill(masked.view(shape), 0.0)
    return features
