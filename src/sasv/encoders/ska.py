"""SKA-TDNN (Mun et al., SLT 2022): selective-kernel attention over frequency and channels before the TDNN trunk."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sasv.encoders import ecapa
from sasv.frontends.masks import keep, masked_mean


@dataclass(frozen=True)
class SkaSizes(ecapa.EcapaSizes):
    """Sizes of SKA-TDNN; the defaults are published (30,835,104 parameters)."""

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
    """Branches with kernels 3 and 5, mixed by softmax weights per frequency bin or per channel.

    Args:
        channels: channels of the features (batch, channels, bands, frames).
        bands: frequency bins; weights are per bin.
        axis: 2 for weights per frequency bin, 1 for weights per channel.
    """

    def __init__(self, channels: int, bands: int, axis: int) -> None:
        super().__init__()
        self.axis = axis
        size = bands if axis == 2 else channels
        hidden = max(16, size // 8)
        self.convs = nn.ModuleList(_Branch(channels, kernel) for kernel in (3, 5))
        self.fc = nn.Linear(size, hidden)
        self.relu = nn.ReLU()
        self.fcs = nn.ModuleList(nn.Linear(hidden, size) for _ in (3, 5))

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


class SkaTdnn(ecapa.TdnnTrunk):
    """SKA-TDNN: a two-dimensional front with selective kernels, then the TDNN trunk."""

    Sizes = SkaSizes

    def __init__(self, sizes: SkaSizes | None = None) -> None:
        super().__init__(sizes)
        front = self.sizes.front
        half = (self.sizes.mels + 1) // 2
        self.add_frontend()
        self.frt_conv1 = nn.Conv2d(1, front, 3, stride=(2, 1), padding=1)
        self.frt_bn1 = nn.BatchNorm2d(front)
        self.frt_block1 = _ResidualBlock(front, half)
        self.frt_block2 = _ResidualBlock(front, half)
        self.frt_conv2 = nn.Conv2d(front, front, 3, stride=(2, 1), padding=1)
        self.frt_bn2 = nn.BatchNorm2d(front)
        self.add_trunk(front * ((half + 1) // 2))

    def network(self, features: Tensor, mask: Tensor | None, frames: Tensor | None) -> Tensor:
        mask2d = None if mask is None else mask[:, :, None]
        x = self.frt_bn1(self.relu(self.frt_conv1(features[:, None])))
        x = self.frt_block1(x, mask2d)
        x = self.frt_block2(x, mask2d)
        x = self.frt_bn2(self.relu(self.frt_conv2(keep(x, mask2d))))
        return self.trunk(x.flatten(1, 2), mask)

    @classmethod
    def recognises(cls, names: Collection[str]) -> bool:
        return "frt_conv1.weight" in names

    @classmethod
    def sizes_of(cls, shapes: Mapping[str, tuple[int, ...]]) -> SkaSizes:
        return SkaSizes(**cls.trunk_sizes(shapes), front=shapes["frt_conv1.weight"][0])
