"""NSF-HiFi-GAN: HiFi-GAN driven by the harmonic-plus-noise source of the neural source-filter model.

Source: Wang, Takaki and Yamagishi, "Neural source-filter waveform models for statistical parametric speech synthesis",
IEEE/ACM TASLP 2020, section III (sines at F0 and its harmonics, noise where unvoiced, one learnt mixture). Weights:
the open NSF-HiFi-GAN checkpoints (``model.ckpt`` and ``config.json``); entries carry their names.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sasv.core.errors import MissingExtra
from sasv.vocoders.hifi_gan import Generator, HifiGan

HARMONICS = 8
SINE, NOISE = 0.1, 0.003
"""Amplitude of a sine, and of the noise beside it; where unvoiced the noise is a third of a sine."""


class _Source(nn.Module):
    """Harmonic sines and noise to one excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.l_linear = nn.Linear(HARMONICS + 1, 1)

    def forward(self, f0: Tensor, noise: Tensor, rate: int) -> Tensor:
        """Return the excitation (batch, 1, samples) of F0 in Hz (batch, samples) and noise (batch, samples, 9)."""
        cycles = torch.cumsum(f0.double() / rate, dim=1)[:, :, None]
        harmonics = torch.arange(1, HARMONICS + 2, device=f0.device)
        sines = SINE * torch.sin(2 * torch.pi * torch.remainder(cycles * harmonics, 1.0)).float()
        voiced = (f0 > 0).float()[:, :, None]
        mixed = sines * voiced + (NOISE * voiced + SINE / 3 * (1 - voiced)) * noise
        return torch.tanh(self.l_linear(mixed)).transpose(1, 2)


class SourceGenerator(Generator):
    """The generator of HiFi-GAN that adds the excitation, brought to its rate by a convolution, at every stage."""

    def __init__(self, settings: dict[str, Any]):
        super().__init__(settings)
        self.m_source = _Source()
        self.noise_convs = nn.ModuleList()
        rates = settings["upsample_rates"]
        for stage, width in enumerate(self.widths):
            left = int(np.prod(rates[stage + 1 :]))
            size, padding = (2 * left, (left + 1) // 2) if left > 1 else (1, 0)
            self.noise_convs.append(nn.Conv1d(1, width, size, left, padding=padding))

    def added(self, stage: int, source: Tensor | None) -> Tensor:
        """Return the excitation at the rate of a stage."""
        return self.noise_convs[stage](source)


class NsfHifiGan(HifiGan):
    """NSF-HiFi-GAN; F0 by WORLD's Harvest."""

    mel = "by its config.json (commonly 128 Slaney bands, 40 Hz to 16 kHz, 2048/512 at 44.1 kHz, natural log)"
    licence = "code ours; of the weights see their card (the open 44.1 kHz ones: CC BY-NC-SA 4.0)"
    source = "github.com/openvpi/vocoders releases, nsf_hifigan"
    network = SourceGenerator
    piece_seconds = 30.0  # the sines begin anew with a piece

    def __init__(self, weights: str = "", device: str = "cpu") -> None:
        try:
            import pyworld
        except ImportError as error:
            raise MissingExtra("pyworld-prebuilt", "vocoders", "the vocoder nsf-hifi-gan (for F0)") from error
        self.pyworld = pyworld
        super().__init__(weights, device)

    def pitch(self, wave: np.ndarray) -> np.ndarray:
        """Return F0 in Hz of each frame, 0 where unvoiced."""
        times = 1000.0 * self.hop / self.rate
        f0, _ = self.pyworld.harvest(wave.astype(np.float64), self.rate, frame_period=times)
        return f0[: len(wave) // self.hop]

    def generate(self, waves: Tensor, seeds: Sequence[int]) -> Tensor:
        pitches = np.stack([self.pitch(wave) for wave in waves.cpu().numpy()]).astype(np.float32)
        f0 = F.interpolate(torch.from_numpy(pitches)[:, None], scale_factor=self.hop)[:, 0].to(self.device)
        noise = self.noise((f0.shape[1], HARMONICS + 1), seeds)
        return self.generator(self.features(waves), self.generator.m_source(f0, noise, self.rate))
