"""CARGAN (Morrison et al., ICLR 2022): a neural vocoder that generates 2,048 samples at a time from
mel features and the previous 512 samples.

Only the weights in the package ``cargan`` are used, because importing the package requires
torchaudio.
"""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sasv.core.errors import SasvError
from sasv.vocoders.neural import Mel, NeuralVocoder, load_into, read_weights

CHUNK = 2048
MEMORY = 512
"""Number of samples generated at a time, and number of previous samples that are input."""

BANDS = 80
HIDDEN = 256
SUMMARY = 128
WIDTH = 768


def _convolution(ins: int, outs: int, size: int = 3, dilation: int = 1) -> nn.Conv1d:
    return nn.Conv1d(ins, outs, size, dilation=dilation, padding=dilation * (size - 1) // 2)


class _Block(nn.Module):
    """Two residual pairs of convolutions with dilations 1, 3, 9, 27, as in GAN-TTS; the first may
    upsample.
    """

    def __init__(self, ins: int, outs: int, up: int = 1):
        super().__init__()
        raised = [nn.Upsample(scale_factor=up)] if up > 1 else []
        first: list[nn.Module] = [
            nn.ReLU(),
            *raised,
            _convolution(ins, outs),
            nn.ReLU(),
            _convolution(outs, outs, 3, 3),
        ]
        self.conv1 = nn.Sequential(*first)
        self.res1 = nn.Sequential(*raised, _convolution(ins, outs, 1))
        self.conv2 = nn.Sequential(
            nn.ReLU(), _convolution(outs, outs, 3, 9), nn.ReLU(), _convolution(outs, outs, 3, 27)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x) + self.res1(x)
        return x + self.conv2(x)


class _Memory(nn.Module):
    """Summary of the previous samples."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for ins, outs in ((MEMORY, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, HIDDEN)):
            layers += [nn.Linear(ins, outs), nn.LeakyReLU(0.1)]
        self.model = nn.Sequential(*layers, nn.Linear(HIDDEN, SUMMARY))

    def forward(self, before: Tensor) -> Tensor:
        return self.model(before)


class Generator(nn.Module):
    """Generates waveforms (batch, frames * 256) from mel features (batch, 80, frames) and the
    previous samples (batch, 512).
    """

    def __init__(self) -> None:
        super().__init__()
        sizes = [
            (1, 1, 1),
            (1, 1, 1),
            (1, 2, 4),
            (2, 2, 4),
            (2, 2, 4),
            (2, 2, 1),
            (2, 4, 2),
            (4, 4, 1),
            (4, 8, 2),
            (8, 8, 1),
        ]
        blocks = [_Block(WIDTH // ins, WIDTH // outs, up) for ins, outs, up in sizes]
        self.gblocks = nn.Sequential(_convolution(BANDS + SUMMARY, WIDTH, 1), *blocks)
        self.last_conv = nn.Sequential(nn.ReLU(), _convolution(WIDTH // 8, 1))
        self.ar_model = _Memory()

    def forward(self, mel: Tensor, before: Tensor) -> Tensor:
        summary = self.ar_model(before)[:, :, None].expand(-1, -1, mel.shape[2])
        return torch.tanh(self.last_conv(self.gblocks(torch.cat((mel, summary), dim=1))))[:, 0]


class Cargan(NeuralVocoder):
    """CARGAN, trained on VCTK; its weights come with ``pip install --no-deps cargan``."""

    rate = 22050
    needs_weights = False
    mel = "80 Slaney bands to 11.025 kHz, 1024/256 at 22.05 kHz, decimal log"
    licence = "MIT (code and weights)"
    source = "inside the wheel of cargan 0.0.4"
    hop = CHUNK
    piece_seconds = 30.0  # a piece begins from silence

    def __init__(self, weights: str = "", device: str = "cpu") -> None:
        super().__init__(weights, device)
        self.features = Mel(self.rate, 1024, 1024, 256, BANDS, 0.0, self.rate / 2, decimal=True)
        path = weights or inside_package()
        self.generator = load_into(Generator(), read_weights(path), path, device)

    def generate(self, waves: Tensor, seeds: Sequence[int], prepared: Sequence[Any]) -> Tensor:
        mel = self.features(waves)
        made = [waves.new_zeros(len(waves), MEMORY)]
        for first in range(0, mel.shape[2], CHUNK // 256):
            made.append(
                self.generator(mel[:, :, first : first + CHUNK // 256], made[-1][:, -MEMORY:])
            )
        return torch.cat(made[1:], dim=1)


def inside_package() -> str:
    """Return the path of the weights in the installed package.

    Raises:
        SasvError: the package is not installed.
    """
    found = importlib.util.find_spec("cargan")
    for folder in (found.submodule_search_locations or []) if found else []:
        path = Path(folder) / "assets" / "checkpoints" / "cargan.pt"
        if path.exists():
            return str(path)
    raise SasvError(
        "the vocoder cargan uses the weights in the package cargan, which is not installed; "
        "pip install --no-deps cargan"
    )
