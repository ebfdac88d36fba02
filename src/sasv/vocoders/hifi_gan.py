"""HiFi-GAN (Kong et al., NeurIPS 2020), V1 to V3, from the official generator checkpoints.

The network of ``transformers`` supports only V1 and V2 (a test compares the two). V3 has other
residual blocks, and the NSF variant needs access to the inside of the network, so that the network
is implemented here. The state-dict keys are the official ones.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sasv.core.errors import CheckpointError
from sasv.vocoders.neural import Mel, NeuralVocoder, load_into, read_settings, read_weights

SLOPE = 0.1
SETTINGS = (
    *(
        "resblock",
        "upsample_rates",
        "upsample_kernel_sizes",
        "upsample_initial_channel",
        "resblock_kernel_sizes",
    ),
    *(
        "resblock_dilation_sizes",
        "num_mels",
        "n_fft",
        "hop_size",
        "win_size",
        "sampling_rate",
        "fmin",
        "fmax",
    ),
)


class _Residual(nn.Module):
    """Residual block over (batch, channels, samples): type 1 of V1 and V2, in which a plain
    convolution follows each dilated one, or type 2 of V3, which has only dilated ones.
    """

    def __init__(self, channels: int, size: int, dilations: Sequence[int], kind: str):
        super().__init__()

        def convolutions(widths: Sequence[int]) -> nn.ModuleList:
            return nn.ModuleList(
                nn.Conv1d(channels, channels, size, dilation=width, padding=width * (size - 1) // 2)
                for width in widths
            )

        self.kind = kind
        if kind == "1":
            self.convs1, self.convs2 = convolutions(dilations), convolutions([1] * len(dilations))
        else:
            self.convs = convolutions(dilations)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "1":
            for dilated, plain in zip(self.convs1, self.convs2):
                x = x + plain(F.leaky_relu(dilated(F.leaky_relu(x, SLOPE)), SLOPE))
            return x
        for dilated in self.convs:
            x = x + dilated(F.leaky_relu(x, SLOPE))
        return x


class Generator(nn.Module):
    """Generates waveforms (batch, frames * hop) from mel features (batch, bands, frames)."""

    def __init__(self, settings: dict[str, Any]):
        super().__init__()
        channels = settings["upsample_initial_channel"]
        rates = settings["upsample_rates"]
        sizes = settings["upsample_kernel_sizes"]
        kernels = settings["resblock_kernel_sizes"]
        dilations = settings["resblock_dilation_sizes"]
        self.kernels = len(kernels)
        self.conv_pre = nn.Conv1d(settings["num_mels"], channels, 7, padding=3)
        self.widths: list[int] = []
        self.ups, self.resblocks = nn.ModuleList(), nn.ModuleList()
        for rate, size in zip(rates, sizes):
            self.ups.append(
                nn.ConvTranspose1d(channels, channels // 2, size, rate, padding=(size - rate) // 2)
            )
            channels //= 2
            self.widths.append(channels)
            for kernel, widths in zip(kernels, dilations):
                self.resblocks.append(
                    _Residual(channels, kernel, widths, str(settings["resblock"]))
                )
        self.conv_post = nn.Conv1d(channels, 1, 7, padding=3)

    def added(self, stage: int, source: Tensor | None) -> Tensor | float:
        """Return the signal that is added after an upsampling stage, the excitation in the NSF
        variant.
        """
        return 0.0

    def forward(self, mel: Tensor, source: Tensor | None = None) -> Tensor:
        x = self.conv_pre(mel)
        for stage, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, SLOPE)) + self.added(stage, source)
            blocks = self.resblocks[stage * self.kernels : (stage + 1) * self.kernels]
            x = sum(block(x) for block in blocks) / self.kernels
        return torch.tanh(self.conv_post(F.leaky_relu(x)))[:, 0]


class HifiGan(NeuralVocoder):
    """HiFi-GAN; ``weights`` is the official generator, with config.json in the same folder."""

    mel = "80 Slaney bands to 8 kHz, 1024/256 at 22.05 kHz, natural log (by its config.json)"
    licence = "MIT (official code and weights)"
    source = "github.com/jik876/hifi-gan, its pretrained models"
    network: type[Generator] = Generator

    def __init__(self, weights: str = "", device: str = "cpu") -> None:
        super().__init__(weights, device)
        settings = read_settings(Path(weights).parent / "config.json", SETTINGS)
        self.settings = settings
        self.rate = settings["sampling_rate"]
        self.hop = settings["hop_size"]
        self.features = mel_of(settings, Path(weights).parent / "config.json")
        self.generator = load_into(self.network(settings), read_weights(weights), weights, device)

    def generate(self, waves: Tensor, seeds: Sequence[int], prepared: Sequence[Any]) -> Tensor:
        return self.generator(self.features(waves))


def mel_of(settings: dict[str, Any], path: Path) -> Mel:
    """Return the mel convention that a config.json of this family describes.

    Raises:
        CheckpointError: the settings contradict each other.
    """
    rate = settings["sampling_rate"]
    hop = settings["hop_size"]
    if torch.tensor(settings["upsample_rates"]).prod() != hop:
        raise CheckpointError(
            f"{path}: the product of upsample_rates {settings['upsample_rates']} is not the "
            f"hop_size {hop}"
        )
    high = settings["fmax"] or rate / 2
    return Mel(
        rate,
        settings["n_fft"],
        settings["win_size"],
        hop,
        settings["num_mels"],
        settings["fmin"],
        high,
    )
