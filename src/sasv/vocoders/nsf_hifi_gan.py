"""NSF-HiFi-GAN: HiFi-GAN driven by the harmonic-plus-noise source of the neural source-filter
model.

Source: Wang, Takaki and Yamagishi, "Neural source-filter waveform models for statistical parametric
speech synthesis", IEEE/ACM TASLP 2020, section III (sines at F0 and its harmonics, noise where
unvoiced, one learnt mixture). Weights: the open NSF-HiFi-GAN checkpoints (``model.ckpt`` and
``config.json``), which have the same state-dict keys.
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
PITCHED_BATCH_SECONDS = 40.0
"""Total speech per batch on a GPU: few seconds, so that it need not wait long for the first F0."""

SINE = 0.1
NOISE = 0.003
"""Amplitude of a sine, and of the noise in voiced speech; in unvoiced speech, the noise has a third
of the amplitude of a sine.
"""


class Source(nn.Module):
    """Mixes sines at F0 and its harmonics, and noise, into one excitation."""

    def __init__(self, sines: int) -> None:
        super().__init__()
        self.l_linear = nn.Linear(sines, 1)

    def forward(self, f0: Tensor, noise: Tensor, rate: int, phases: Tensor | None = None) -> Tensor:
        """Return the excitation (batch, 1, samples).

        Args:
            f0: (batch, samples) in Hz, 0 where unvoiced.
            noise: (batch, samples, sines), standard normal.
            rate: sample rate in Hz.
            phases: (batch, sines), initial phase of each sine in cycles; None for 0.
        """
        cycles = torch.cumsum(f0.double() / rate, dim=1)[:, :, None]
        cycles = cycles * torch.arange(1, noise.shape[2] + 1, device=f0.device)
        if phases is not None:
            cycles = cycles + phases[:, None]
        sines = SINE * torch.sin(2 * torch.pi * torch.remainder(cycles, 1.0)).float()
        voiced = (f0 > 0).float()[:, :, None]
        mixed = sines * voiced + (NOISE * voiced + SINE / 3 * (1 - voiced)) * noise
        return torch.tanh(self.l_linear(mixed)).transpose(1, 2)


class SourceGenerator(Generator):
    """The generator of HiFi-GAN, which at every stage adds the excitation, downsampled by a
    convolution.
    """

    def __init__(self, settings: dict[str, Any]):
        super().__init__(settings)
        self.m_source = Source(HARMONICS + 1)
        self.noise_convs = nn.ModuleList()
        rates = settings["upsample_rates"]
        for stage, width in enumerate(self.widths):
            left = int(np.prod(rates[stage + 1 :]))
            size, padding = (2 * left, (left + 1) // 2) if left > 1 else (1, 0)
            self.noise_convs.append(nn.Conv1d(1, width, size, left, padding=padding))

    def added(self, stage: int, source: Tensor | None) -> Tensor:
        """Return the excitation at the sample rate of a stage."""
        return self.noise_convs[stage](source)


def import_pyworld(name: str) -> Any:
    """Return the package pyworld, which estimates F0.

    Raises:
        MissingExtra: the package is not installed.
    """
    try:
        import pyworld
    except ImportError as error:
        raise MissingExtra(
            "pyworld-prebuilt", "vocoders", f"the vocoder {name} (for F0)"
        ) from error
    return pyworld


def pitch(pyworld: Any, wave: np.ndarray, rate: int, hop: int) -> np.ndarray:
    """Return the F0 in Hz of each frame of ``hop`` samples of a waveform (samples,), estimated by
    WORLD's Harvest; 0 where unvoiced.

    Harvest uses one core, about 0.2 s for a second of speech. It releases the interpreter's lock,
    so that several waveforms can be analysed in threads.
    """
    f0, _ = pyworld.harvest(wave.astype(np.float64), rate, frame_period=1000.0 * hop / rate)
    return np.asarray(f0[: len(wave) // hop], np.float32)


class NsfHifiGan(HifiGan):
    """NSF-HiFi-GAN; F0 by WORLD's Harvest."""

    mel = (
        "by its config.json (commonly 128 Slaney bands, 40 Hz to 16 kHz, 2048/512 at 44.1 kHz, "
        "natural log)"
    )
    licence = "code part of sasv; weights: see their card (the open 44.1 kHz: CC BY-NC-SA 4.0)"
    source = "github.com/openvpi/vocoders releases, nsf_hifigan"
    network = SourceGenerator
    piece_seconds = 30.0  # the sines restart with each piece
    batch_seconds = PITCHED_BATCH_SECONDS

    def __init__(self, weights: str = "", device: str = "cpu") -> None:
        self.pyworld = import_pyworld("nsf-hifi-gan")
        super().__init__(weights, device)

    def prepared(self, wave: np.ndarray) -> np.ndarray:
        """Return the F0 of each frame of a piece."""
        return pitch(self.pyworld, wave, self.rate, self.hop)

    def generate(self, waves: Tensor, seeds: Sequence[int], prepared: Sequence[Any]) -> Tensor:
        frames = torch.from_numpy(np.stack(prepared))
        f0 = F.interpolate(frames[:, None], scale_factor=self.hop)[:, 0].to(self.device)
        noise = self.noise((f0.shape[1], HARMONICS + 1), seeds)
        return self.generator(self.features(waves), self.generator.m_source(f0, noise, self.rate))
