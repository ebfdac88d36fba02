"""ERes2NetV2 (Chen et al., Interspeech 2024): Res2Net blocks with attentional fusion of their
groups and of the last two stages.

The second, third and fourth stage halve the numbers of bands and frames. The state-dict keys are
those of 3D-Speaker.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sasv.core.errors import SasvError
from sasv.encoders.base import Encoder, EncoderOptions
from sasv.encoders.pooling import temporal_statistics
from sasv.frontends.base import Frontend
from sasv.frontends.masks import convolve, keep

CEILING = 20.0
"""Upper limit of the clipped ReLUs inside a block."""
REDUCTION = 4
"""Factor by which the channels are reduced inside a fusion."""
FUSED_STAGES = (3, 4)
"""Stages whose blocks fuse their groups with attention instead of adding them."""


@dataclass(frozen=True)
class Eres2netOptions(EncoderOptions):
    """Options of ERes2NetV2; the defaults are those of 3D-Speaker (17,859,632 parameters).

    Attributes:
        channels: channels of the first stage before expansion; the number doubles at each further
            stage.
        base_width: width of the groups for 64 channels.
        scale: number of channel groups in a block.
        expansion: ratio of the output channels of a block to its inner channels.
        blocks: number of blocks in each of the four stages.
    """

    channels: int = 64
    base_width: int = 26
    scale: int = 2
    expansion: int = 2
    blocks: tuple[int, ...] = (3, 4, 6, 3)

    def __post_init__(self) -> None:
        if len(self.blocks) != 4:
            raise SasvError(
                f"blocks must have a number for each of 4 stages, not {len(self.blocks)} numbers"
            )
        if self.channels * self.base_width < 64 * REDUCTION:
            raise SasvError(f"channels times base_width must be at least {64 * REDUCTION}")


def _rectified(x: Tensor) -> Tensor:
    return F.hardtanh(x, 0.0, CEILING)


class _Fusion(nn.Module):
    """Attentional fusion of two maps of the same shape, (batch, channels, bands, frames)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inside = channels // REDUCTION
        self.local_att = nn.Sequential(
            nn.Conv2d(2 * channels, inside, 1),
            nn.BatchNorm2d(inside),
            nn.SiLU(),
            nn.Conv2d(inside, channels, 1),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        weight = torch.tanh(self.local_att(torch.cat((x, y), dim=1)))
        return x * (1 + weight) + y * (1 - weight)


class _Block(nn.Module):
    """Res2Net block over (batch, channels, bands, frames); its first convolution, of width one, has
    the stride.
    """

    def __init__(
        self, inputs: int, channels: int, stride: int, options: Eres2netOptions, fused: bool
    ) -> None:
        super().__init__()
        self.width = math.floor(channels * options.base_width / 64)
        inside = self.width * options.scale
        outputs = channels * options.expansion
        self.conv1 = nn.Conv2d(inputs, inside, 1, stride, bias=False)
        self.bn1 = nn.BatchNorm2d(inside)
        self.convs = nn.ModuleList(
            nn.Conv2d(self.width, self.width, 3, padding=1, bias=False)
            for _ in range(options.scale)
        )
        self.bns = nn.ModuleList(nn.BatchNorm2d(self.width) for _ in range(options.scale))
        if fused:
            self.fuse_models = nn.ModuleList(_Fusion(self.width) for _ in range(options.scale - 1))
        self.fused = fused
        self.conv3 = nn.Conv2d(inside, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride > 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        y, mask = convolve(self.conv1, x, mask)
        groups = torch.split(_rectified(self.bn1(y)), self.width, dim=1)
        outputs: list[Tensor] = []
        for index, (conv, norm) in enumerate(zip(self.convs, self.bns)):
            current = groups[index]
            if index > 0 and self.fused:
                current = self.fuse_models[index - 1](outputs[-1], current)
            elif index > 0:
                current = outputs[-1] + current
            outputs.append(_rectified(norm(conv(keep(current, mask)))))
        y = self.bn3(self.conv3(torch.cat(outputs, dim=1)))
        return _rectified(y + self.shortcut(x)), mask


class Eres2netV2(Encoder):
    """ERes2NetV2."""

    name = "eres2netv2"
    Options = Eres2netOptions
    min_frames = 9  # which leave two behind three convolutions of stride two
    presets = {
        "published": {},
        "tiny": {"channels": 16, "blocks": (2, 2, 2, 2)},
        "test": {"channels": 12, "blocks": (1, 1, 1, 1), "embedding": 24},
    }
    default_frontend = "kaldi"

    def __init__(self, options: Eres2netOptions, frontend: Frontend) -> None:
        super().__init__(options, frontend)
        o = options
        self.conv1 = nn.Conv2d(1, o.channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(o.channels)
        inputs = o.channels
        bands = frontend.feature_size
        stages = []
        for stage, count in enumerate(o.blocks, 1):
            channels = o.channels * 2 ** (stage - 1)
            blocks = nn.ModuleList()
            for index in range(count):
                stride = 2 if stage > 1 and index == 0 else 1
                blocks.append(_Block(inputs, channels, stride, o, stage in FUSED_STAGES))
                inputs = channels * o.expansion
            stages.append(blocks)
            if stage > 1:
                bands = (bands + 1) // 2
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.layer3_ds = nn.Conv2d(inputs // 2, inputs, 3, 2, 1, bias=False)
        self.fuse34 = _Fusion(inputs)
        self.seg_1 = nn.Linear(2 * inputs * bands, o.embedding)

    def network(self, features: Tensor, mask: Tensor | None) -> Tensor:
        x = F.relu(self.bn1(self.conv1(keep(features[:, None], mask))))
        for block in (*self.layer1, *self.layer2, *self.layer3):
            x, mask = block(x, mask)
        third = self.layer3_ds(keep(x, mask))
        for block in self.layer4:
            x, mask = block(x, mask)
        x = self.fuse34(x, third).flatten(1, 2)
        return self.seg_1(temporal_statistics(x, mask, epsilon=1e-8))
