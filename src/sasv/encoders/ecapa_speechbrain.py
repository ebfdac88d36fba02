"""ECAPA-TDNN of SpeechBrain, whose blocks are chained and whose convolutions use reflection padding
at the ends of a waveform.

The layers are those of the published system (``sasv.encoders.layers``), and so are most state-dict
keys; ``sasv.checkpoints.formats`` renames those of SpeechBrain.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sasv.encoders.base import Encoder
from sasv.encoders.ecapa import RES2_DILATIONS, RES2_KERNEL, TEST_OPTIONS, EcapaOptions
from sasv.encoders.layers import Res2Block, attention_logits, attention_network
from sasv.encoders.memory_format import concatenated
from sasv.frontends.base import Frontend
from sasv.frontends.masks import keep, masked_mean, masked_variance

VARIANCE_FLOOR = 1e-12


@dataclass(frozen=True)
class EcapaSpeechBrainOptions(EcapaOptions):
    """Options of SpeechBrain's ECAPA-TDNN; the defaults are those of its VoxCeleb model (20,767,552
    parameters).
    """

    pooled: int = 3072
    attention: int = 128


def mirrored(x: Tensor, mask: Tensor | None, width: int) -> Tensor:
    """Extend (batch, channels, frames) by ``width`` mirrored frames at both ends. Each row is
    mirrored at its own end.
    """
    padded = F.pad(x, (width, width), "reflect")
    if mask is None:
        return padded
    last = mask[:, 0].sum(dim=1)[:, None, None] - 1
    steps = torch.arange(1, width + 1, device=x.device)
    source = (last - steps).clamp(min=0).expand(-1, x.shape[1], -1)
    target = (last + steps + width).expand(-1, x.shape[1], -1)
    # Autocast pads in float32, whatever the type of x.
    return padded.scatter(2, target, torch.gather(x, 2, source).to(padded.dtype))


def convolve_mirrored(layer: nn.Conv1d, x: Tensor, mask: Tensor | None) -> Tensor:
    """Apply a convolution with reflection padding; the number of frames stays the same."""
    dilation = layer.dilation[0]
    width = layer.kernel_size[0] // 2 * dilation
    return F.conv1d(mirrored(x, mask, width), layer.weight, layer.bias, dilation=dilation)


class MirroredRes2Block(Res2Block):
    """SE-Res2 block with reflection padding, in which the first group of channels is passed on
    unchanged.
    """

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        groups = torch.split(self.bn1(self.relu(self.conv1(x))), self.width, dim=1)
        outputs = [groups[0]]
        for index, (conv, norm) in enumerate(zip(self.convs, self.bns), 1):
            assert isinstance(conv, nn.Conv1d)
            current = groups[index] if index == 1 else outputs[-1] + groups[index]
            outputs.append(norm(self.relu(convolve_mirrored(conv, current, mask))))
        mixed = self.bn3(self.relu(self.conv3(concatenated(outputs))))
        return self.se(mixed, mask) + x


class EcapaSpeechBrain(Encoder):
    """ECAPA-TDNN of SpeechBrain."""

    name = "ecapa-speechbrain"
    Options = EcapaSpeechBrainOptions
    presets = {
        "published": {},
        "tiny": {"channels": 128, "pooled": 384, "attention": 64, "bottleneck": 64},
        "test": TEST_OPTIONS,
    }
    default_frontend = "speechbrain"

    def __init__(self, options: EcapaSpeechBrainOptions, frontend: Frontend) -> None:
        super().__init__(options, frontend)
        o = options
        self.conv1 = nn.Conv1d(frontend.feature_size, o.channels, 5)
        self.bn1 = nn.BatchNorm1d(o.channels)
        blocks = [
            MirroredRes2Block(o.channels, RES2_KERNEL, dilation, o.scale, o.bottleneck)
            for dilation in RES2_DILATIONS
        ]
        self.layer1, self.layer2, self.layer3 = blocks
        self.layer4 = nn.Conv1d(3 * o.channels, o.pooled, 1)
        self.bn4 = nn.BatchNorm1d(o.pooled)
        self.attention = attention_network(o.pooled, o.attention)
        self.bn5 = nn.BatchNorm1d(2 * o.pooled)
        self.fc6 = nn.Linear(2 * o.pooled, o.embedding)

    def network(self, features: Tensor, mask: Tensor | None) -> Tensor:
        x = self.bn1(F.relu(convolve_mirrored(self.conv1, features, mask)))
        x1 = self.layer1(x, mask)
        x2 = self.layer2(x1, mask)
        x3 = self.layer3(x2, mask)
        x = self.bn4(F.relu(self.layer4(concatenated([x1, x2, x3]))))
        return self.fc6(self.bn5(self._pooled(x, mask)))

    def _pooled(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = keep(x.float(), mask)
        deviation = masked_variance(x, mask, correction=0).clamp(min=VARIANCE_FLOOR).sqrt()
        logits = attention_logits(self.attention, x, masked_mean(x, mask), deviation)
        weights = self.attention[-1](keep(logits, mask, -math.inf))
        mean = (x * weights).sum(dim=2, keepdim=True)
        variance = ((x - mean).square() * weights).sum(dim=2, keepdim=True)
        return torch.cat((mean, variance.clamp(min=VARIANCE_FLOOR).sqrt()), dim=1).squeeze(2)
