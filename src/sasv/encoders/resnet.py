"""Residual networks of WeSpeaker: ResNet 18 to 293 with temporal or attentive statistics pooling,
and optionally SimAM.

The second, third and fourth stage halve the numbers of bands and frames. The state-dict keys are
those of WeSpeaker's ResNet; ``sasv.checkpoints.formats`` renames those of its SimAM-ResNet.

Sources: He et al. 2016; for speakers Zeinali et al. 2019; SimAM: Yang et al. 2021, for speakers Qin
et al. 2022.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sasv.encoders.base import Encoder, EncoderOptions
from sasv.encoders.pooling import AttentiveStatistics, temporal_statistics
from sasv.frontends.base import Frontend
from sasv.frontends.masks import convolve, fitted, keep, masked_mean

DEPTHS = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
    221: ("bottleneck", (6, 16, 48, 3)),
    293: ("bottleneck", (10, 20, 64, 3)),
}
"""Depth -> type of block and number of blocks in each of the four stages."""
SIMAM_LAMBDA = 1e-4


@dataclass(frozen=True)
class ResnetOptions(EncoderOptions):
    """Options of a residual network; the defaults are those of WeSpeaker's ResNet34 (6,634,336
    parameters).

    Attributes:
        depth: number of layers.
        channels: channels of the first stage; the number doubles at each further stage.
        pooling: mean and standard deviation over time (``statistics``), or both weighted by
            attention.
        attention: channels inside the attention, if the pooling is attentive.
        simam: whether each block weights its outputs with SimAM.
    """

    embedding: int = 256
    depth: Literal[18, 34, 50, 101, 152, 221, 293] = 34
    channels: int = 32
    pooling: Literal["statistics", "attentive"] = "statistics"
    attention: int = 128
    simam: bool = False


def simam(x: Tensor, mask: Tensor | None) -> Tensor:
    """Weight each entry of (batch, channels, bands, frames) by its distance from the mean of its
    channel (SimAM).
    """
    squares = (x - masked_mean(x, mask, (2, -1))).square()
    frames = x.shape[3] if mask is None else fitted(mask, x).sum(dim=3, keepdim=True)
    variance = keep(squares, mask).sum(dim=(2, 3), keepdim=True) / (frames * x.shape[2] - 1)
    return x * torch.sigmoid(squares / (4 * (variance + SIMAM_LAMBDA)) + 0.5)


class _Block(nn.Module):
    """Base class of both types of block, over (batch, channels, bands, frames). The shortcut is a
    projection if the shape changes.
    """

    expansion = 1

    def __init__(self, inputs: int, channels: int, stride: int, weigh: bool) -> None:
        super().__init__()
        self.weigh = weigh
        outputs = channels * self.expansion
        self.shortcut = nn.Sequential()
        if stride > 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def residual(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the residual, which is added to the shortcut, and its mask."""
        raise NotImplementedError

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        y, after = self.residual(x, mask)
        if self.weigh:
            y = simam(y, after)
        y += self.shortcut(x)
        return F.relu(y, inplace=True), after


class _BasicBlock(_Block):
    norm_behind = {"conv1": "bn1", "conv2": "bn2"}

    def __init__(self, inputs: int, channels: int, stride: int, weigh: bool) -> None:
        super().__init__(inputs, channels, stride, weigh)
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def residual(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        y, mask = convolve(self.conv1, x, mask)
        y = F.relu(self.bn1(y), inplace=True)
        return self.bn2(self.conv2(keep(y, mask))), mask


class _BottleneckBlock(_Block):
    norm_behind = {"conv1": "bn1", "conv2": "bn2", "conv3": "bn3"}
    expansion = 4

    def __init__(self, inputs: int, channels: int, stride: int, weigh: bool) -> None:
        super().__init__(inputs, channels, stride, weigh)
        self.conv1 = nn.Conv2d(inputs, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, channels * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels * self.expansion)

    def residual(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y, mask = convolve(self.conv2, y, mask)
        y = F.relu(self.bn2(y), inplace=True)
        return self.bn3(self.conv3(y)), mask


BLOCKS: dict[str, type[_Block]] = {"basic": _BasicBlock, "bottleneck": _BottleneckBlock}


class Resnet(Encoder):
    """Residual network over bands and frames."""

    name = "resnet"
    Options = ResnetOptions
    min_frames = 9  # which leave two behind three convolutions of stride two
    norm_behind = {"conv1": "bn1"}
    presets = {
        "published": {},
        "tiny": {"depth": 18, "channels": 16},
        "test": {"depth": 18, "channels": 2, "embedding": 24},
        "simam": {"channels": 64, "pooling": "attentive", "simam": True},
    }
    default_frontend = "kaldi"
    default_frontend_options = {"window": "hamming", "scale": 32768.0}

    def __init__(self, options: ResnetOptions, frontend: Frontend) -> None:
        super().__init__(options, frontend)
        o = options
        kind, counts = DEPTHS[o.depth]
        self.conv1 = nn.Conv2d(1, o.channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(o.channels)
        inputs = o.channels
        bands = frontend.feature_size
        stages = []
        for stage, count in enumerate(counts):
            channels = o.channels * 2**stage
            blocks = nn.ModuleList()
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(BLOCKS[kind](inputs, channels, stride, o.simam))
                inputs = channels * BLOCKS[kind].expansion
            stages.append(blocks)
            if stage > 0:
                bands = (bands + 1) // 2
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        width = inputs * bands
        if o.pooling == "attentive":
            self.pooling = AttentiveStatistics(width, o.attention)
        self.seg_1 = nn.Linear(2 * width, o.embedding)

    def network(self, features: Tensor, mask: Tensor | None) -> Tensor:
        x = F.relu(self.bn1(self.conv1(keep(features[:, None], mask))), inplace=True)
        for block in (*self.layer1, *self.layer2, *self.layer3, *self.layer4):
            x, mask = block(x, mask)
        x = x.flatten(1, 2)
        if self.options.pooling == "attentive":
            return self.seg_1(self.pooling(x, mask))
        return self.seg_1(temporal_statistics(x, mask, epsilon=1e-7))
