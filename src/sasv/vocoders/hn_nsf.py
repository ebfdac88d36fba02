"""The harmonic-plus-noise neural source-filter model with trainable sinc filters (hn-sinc-NSF).

Source: Wang and Yamagishi, "Neural harmonic-plus-noise waveform model with trainable maximum voice
frequency for text-to-speech synthesis", SSW 2019. Sizes and state-dict keys are those of the NII's
release, and the mel convention is that of its feature scripts.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sasv.vocoders.neural import NeuralVocoder, load_into, read_weights
from sasv.vocoders.nsf_hifi_gan import (
    PITCHED_BATCH_SECONDS,
    SINE,
    Source,
    import_pyworld,
    pitch,
)

RATE = 16000
HOP = 80
BANDS = 80
WIDTH = 64
SINES = 8
ORDER = 31
CPU_CHUNK = 8192
"""Samples that a CPU filters at once. A new tensor of a whole recording for each layer takes as
long as the convolutions, because the operating system provides its memory anew each time.
"""


class _Conv(nn.Conv1d):
    """Convolution that keeps the length of (batch, channels, samples); if causal, it depends only
    on past samples.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        dilation: int = 1,
        causal: bool = False,
        bias: bool = True,
    ):
        super().__init__(inputs, outputs, size, dilation=dilation, bias=bias)
        reach = dilation * (size - 1)
        self.sides = (reach, 0) if causal else (reach // 2, reach - reach // 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(super().forward(F.pad(x, self.sides)))


class _Smooth(nn.Conv1d):
    """Moving average of each channel, with the values at the ends repeated."""

    def __init__(self, channels: int, size: int):
        super().__init__(channels, channels, size, groups=channels, bias=False)
        nn.init.constant_(self.weight, 1 / size)
        self.sides = ((size - 1) // 2, size - 1 - (size - 1) // 2)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, self.sides, "replicate"))


class _Upsample(nn.Module):
    """Repeats frames to the sample rate and smooths them twice."""

    def __init__(self, channels: int):
        super().__init__()
        self.l_ave1, self.l_ave2 = _Smooth(channels, HOP), _Smooth(channels, HOP)

    def forward(self, x: Tensor) -> Tensor:
        return self.l_ave1(self.l_ave2(F.interpolate(x, scale_factor=HOP)))


class _Recurrent(nn.Module):
    def __init__(self, inputs: int):
        super().__init__()
        self.l_blstm = nn.LSTM(inputs, WIDTH // 2, bidirectional=True, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.l_blstm(x)[0]


class _Condition(nn.Module):
    """Computes, at the sample rate, the context of the filters and their cut-off frequency from
    frame-level features.
    """

    def __init__(self) -> None:
        super().__init__()
        self.l_blstm = _Recurrent(BANDS + 1)
        self.l_conv1d = _Conv(WIDTH, WIDTH, 3)
        self.l_upsamp, self.l_upsamp_f0_hi = _Upsample(WIDTH), _Upsample(1)
        self.l_cut_f_smooth = _Smooth(1, 4 * HOP)

    def forward(self, features: Tensor, voiced: Tensor) -> tuple[Tensor, Tensor]:
        """Return the context (batch, 64, samples), and the cut-off frequency (batch, 1, samples) as
        a share of the Nyquist frequency.

        Args:
            features: (batch, frames, 81), normalised; the last one is F0.
            voiced: (batch, 1, samples), 0 or 1.
        """
        hidden = self.l_upsamp(self.l_conv1d(self.l_blstm(features).transpose(1, 2)))
        f0 = self.l_upsamp_f0_hi(features[:, :, -1:].transpose(1, 2))
        cut = 0.2 * hidden[:, -1:] + 0.4 * voiced + 0.3
        return torch.cat((hidden[:, :-1], f0), 1), self.l_cut_f_smooth(cut)


class _Block(nn.Module):
    """Dilated convolutions that filter an excitation depending on the context."""

    def __init__(self, layers: int):
        super().__init__()
        self.l_ff_1 = nn.Linear(1, WIDTH, bias=False)
        self.l_convs = nn.ModuleList(
            _Conv(WIDTH, WIDTH, 3, 2**power, True, False) for power in range(layers)
        )
        self.l_ff_2, self.l_ff_3 = (
            nn.Linear(WIDTH, WIDTH // 4, bias=False),
            nn.Linear(WIDTH // 4, 1, bias=False),
        )
        self.scale = nn.Parameter(torch.tensor([0.1]))

    def forward(self, signal: Tensor, context: Tensor) -> Tensor:
        hidden = torch.tanh(self.l_ff_1(signal.transpose(1, 2))).transpose(1, 2)
        for convolution in self.l_convs:
            assert isinstance(convolution, _Conv)
            self.add(hidden, convolution, context)
        hidden = torch.tanh(self.l_ff_2((hidden * self.scale).transpose(1, 2)))
        return signal + torch.tanh(self.l_ff_3(hidden)).transpose(1, 2)

    def add(self, hidden: Tensor, convolution: _Conv, context: Tensor) -> None:
        """Add a causal convolution of ``hidden`` and the context to it, in place.

        The end comes first, since a convolution reads only what is before it.
        """
        samples = hidden.shape[2]
        size = CPU_CHUNK if hidden.device.type == "cpu" else samples
        past, _ = convolution.sides
        for start in reversed(range(0, samples, size)):
            chunk = hidden[:, :, start : start + size]
            skipped = min(start, past)
            filtered = convolution(hidden[:, :, start - skipped : start + size])
            chunk += filtered[:, :, skipped:]
            chunk += context[:, :, start : start + size]


def sinc_filters(cut: Tensor) -> tuple[Tensor, Tensor]:
    """Return low-pass and high-pass filters (..., 31) for cut-off frequencies (..., 1):
    Hamming-windowed sinc functions, with gain 1 at 0 Hz and at the Nyquist frequency respectively.
    """
    steps = torch.arange(ORDER, device=cut.device) - ORDER // 2
    window = 0.54 + 0.46 * torch.cos(2 * torch.pi * steps / ORDER)
    low = cut * torch.sinc(cut * steps) * window
    high = torch.sinc(steps.float()) * window - low
    return low / low.sum(-1, keepdim=True), high / (high * (1 - 2 * (steps % 2))).sum(
        -1, keepdim=True
    )


def filtered(signal: Tensor, filters: Tensor) -> Tensor:
    """Apply a time-varying filter: sample n of the result (batch, samples) is the sum over k of
    filter n at tap k times the signal at n - k.
    """
    past = F.pad(signal, (ORDER - 1, 0)).unfold(1, ORDER, 1)
    return (past * filters.flip(-1)).sum(-1)


class _Filter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.l_har_blocks = nn.ModuleList(_Block(10) for _ in range(5))
        self.l_noi_blocks = nn.ModuleList([_Block(5)])

    def forward(self, harmonic: Tensor, noise: Tensor, context: Tensor, cut: Tensor) -> Tensor:
        for block in self.l_har_blocks:
            harmonic = block(harmonic, context)
        noise = self.l_noi_blocks[0](noise, context)
        low, high = sinc_filters(cut.transpose(1, 2))
        return filtered(harmonic[:, 0], low) + filtered(noise[:, 0], high)


class Network(nn.Module):
    """Generates waveforms from the log-mel features and the F0 of frames."""

    def __init__(self) -> None:
        super().__init__()
        self.input_mean, self.input_std = (
            nn.Parameter(torch.zeros(BANDS + 1)),
            nn.Parameter(torch.ones(BANDS + 1)),
        )
        self.output_mean, self.output_std = (
            nn.Parameter(torch.zeros(1)),
            nn.Parameter(torch.ones(1)),
        )  # not used
        self.m_cond, self.m_source, self.m_filter = _Condition(), Source(SINES), _Filter()

    def forward(self, mel: Tensor, f0: Tensor, noise: Tensor, phases: Tensor) -> Tensor:
        """Return waves (batch, samples).

        Args:
            mel: (batch, frames, 80).
            f0: (batch, frames) in Hz, 0 where unvoiced.
            noise: (batch, samples, 9), standard normal.
            phases: (batch, 8), initial phase of each sine in cycles.
        """
        features = (torch.cat((mel, f0[:, :, None]), 2) - self.input_mean) / self.input_std
        held = F.interpolate(f0[:, None], scale_factor=HOP)
        context, cut = self.m_cond(features, (held > 0).float())
        harmonic = self.m_source(held[:, 0], noise[:, :, :SINES], RATE, phases)
        return self.m_filter(harmonic, SINE / 3 * noise[:, :, SINES:].transpose(1, 2), context, cut)


class HnNsf(NeuralVocoder):
    """hn-sinc-NSF of the NII; ``weights`` is its ``trained_network.pt``; F0 by WORLD's Harvest."""

    mel = (
        "80 bands to 8 kHz (linear to 1 kHz, the first the mean), Blackman 400, 1024/80 at 16 "
        "kHz, natural log, 16-bit"
    )
    licence = "BSD-3-Clause (official code and weights)"
    source = "github.com/nii-yamagishilab/project-NN-Pytorch-scripts, project/01-nsf/hn-sinc-nsf-9"
    rate = RATE
    hop = HOP
    piece_seconds = 30.0  # the sines restart with each piece
    batch_seconds = PITCHED_BATCH_SECONDS

    def __init__(self, weights: str = "", device: str = "cpu") -> None:
        super().__init__(weights, device)
        self.pyworld = import_pyworld("hn-nsf")
        self.network = load_into(Network(), read_weights(weights, "state_dict"), weights, device)

    @cached_property
    def filters(self) -> Tensor:
        """Return the mel filters (80, 513): the mean, then triangles of equal area."""
        top = 1127.01048 * np.log(RATE / 2 / 700 + 1)
        edges = 700 * (np.exp(np.linspace(0, top, BANDS + 1) / 1127.01048) - 1)
        linear = int((edges < 1000).sum())
        edges[: linear + 1] = np.linspace(0, edges[linear], linear + 1)
        bins = np.linspace(0, RATE / 2, 513)
        widths = np.diff(edges)[:, None]
        rising = (bins - edges[:-2, None]) / widths[:-1]
        falling = (edges[2:, None] - bins) / widths[1:]
        triangles = (
            np.maximum(0, np.minimum(rising, falling)) * 2 / (edges[2:] - edges[:-2])[:, None]
        )
        mean = np.zeros((1, 513))
        mean[0, 0] = 2 * 512 / RATE
        return torch.from_numpy(np.concatenate((mean, triangles)).astype(np.float32))

    def features(self, waves: Tensor) -> Tensor:
        """Return log-mel features (batch, samples // 80, 80)."""
        window = torch.blackman_window(400, periodic=False, device=waves.device)
        padded = F.pad(32768 * waves, (200, 200 - HOP))
        frames = padded.unfold(1, 400, HOP) * (window / window.norm())
        magnitude = torch.fft.rfft(frames, 1024).abs().clamp(min=1e-12)
        return torch.log((magnitude @ self.filters.T.to(waves.device)).clamp(min=1e-12))

    def prepared(self, wave: np.ndarray) -> np.ndarray:
        """Return the F0 of each frame of a piece."""
        return pitch(self.pyworld, wave, RATE, HOP)

    def generate(self, waves: Tensor, seeds: Sequence[int], prepared: Sequence[Any]) -> Tensor:
        f0 = torch.from_numpy(np.stack(prepared)).to(self.device)
        noise = self.noise((waves.shape[1], SINES + 1), seeds)
        phases = torch.special.ndtr(self.noise((SINES,), [seed + 1 for seed in seeds]))  # uniform
        phases[:, 0] = 0
        return self.network(self.features(waves), f0, noise, phases)
