"""SKA-TDNN (Mun et al., SLT 2022): selective-kernel attention over frequency and channels before
the TDNN trunk.

Published system and licence: see ``sasv.encoders.ecapa``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sasv.encoders.ecapa import TEST_OPTIONS, EcapaOptions, TdnnTrunk
from sasv.frontends.base import Frontend
from sasv.frontends.masks import keep, masked_mean

KERNELS = (3, 5)
"""Kernel sizes of the branches of a selective kernel."""
LEAST_HIDDEN = 16
REDUCTION = 8
"""The attention has one hidden unit for this many inputs, but at least LEAST_HIDDEN."""


@dataclass(frozen=True)
class SkaOptions(EcapaOptions):
    """Options of SKA-TDNN; the defaults are published (30,835,104 parameters).

    Attributes:
        front: channels of the two-dimensional convolutions before the trunk.
    """

    front: int = 128


class _Branch(nn.Module):
    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel, padding=kernel // 2)
        self.relu = nn.ReLU()
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.relu(self.conv(x)))


class SelectiveKernel(nn.Module):
    """Convolutions with kernels 3 and 5, mixed by softmax weights per frequency bin or per channel.

    Args:
        channels: channels of the features (batch, channels, bands, frames).
        bands: number of frequency bins.
        axis: 2 for weights per frequency bin, 1 for weights per channel.
    """

    def __init__(self, channels: int, bands: int, axis: int) -> None:
        super().__init__()
        self.axis = axis
        size = bands if axis == 2 else channels
        hidden = max(LEAST_HIDDEN, size // REDUCTION)
        self.convs = nn.ModuleList(_Branch(channels, kernel) for kernel in KERNELS)
        self.fc = nn.Linear(size, hidden)
        self.relu = nn.ReLU()
        self.fcs = nn.ModuleList(nn.Linear(hidden, size) for _ in KERNELS)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = keep(x, mask)
        branches = [branch(x) for branch in self.convs]
        pooled = masked_mean(branches[0] + branches[1], mask, (3 - self.axis, -1)).flatten(1)
        hidden = self.relu(self.fc(pooled))
        weights = torch.softmax(torch.stack([linear(hidden) for linear in self.fcs]), dim=0)
        shape = (x.shape[0], 1, -1, 1) if self.axis == 2 else (x.shape[0], -1, 1, 1)
        return branches[0] * weights[0].view(shape) + branches[1] * weights[1].view(shape)


class _ResidualBlock(nn.Module):
    def __init__(self, channels: int, bands: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.skfwse = SelectiveKernel(channels, bands, axis=2)
        self.skcwse = SelectiveKernel(channels, bands, axis=1)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        y = self.bn1(self.relu(self.conv1(keep(x, mask))))
        y = self.skcwse(self.skfwse(y, mask), mask)
        return self.relu(y + x)


class SkaTdnn(TdnnTrunk):
    """SKA-TDNN: a two-dimensional stem with selective kernels, then the TDNN trunk."""

    name = "ska-tdnn"
    Options = SkaOptions
    presets = {
        "published": {},
        "tiny": {
            "channels": 64,
            "scale": 4,
            "bottleneck": 32,
            "pooled": 128,
            "attention": 32,
            "front": 16,
        },
        "test": {**TEST_OPTIONS, "front": 8},
    }

    def __init__(self, options: SkaOptions, frontend: Frontend) -> None:
        super().__init__(options, frontend)
        front = options.front
        half = (frontend.feature_size + 1) // 2
        self.frt_conv1 = nn.Conv2d(1, front, 3, stride=(2, 1), padding=1)
        self.frt_bn1 = nn.BatchNorm2d(front)
        self.frt_block1 = _ResidualBlock(front, half)
        self.frt_block2 = _ResidualBlock(front, half)
        self.frt_conv2 = nn.Conv2d(front, front, 3, stride=(2, 1), padding=1)
        self.frt_bn2 = nn.BatchNorm2d(front)
        self.add_trunk(front * ((half + 1) // 2))

    def network(self, features: Tensor, mask: Tensor | None) -> Tensor:
        x = self.frt_bn1(self.relu(self.frt_conv1(features[:, None])))
        x = self.frt_block1(x, mask)
        x = self.frt_block2(x, mask)
        x = self.frt_bn2(self.relu(self.frt_conv2(keep(x, mask))))
        return self.trunk(x.flatten(1, 2), mask)
