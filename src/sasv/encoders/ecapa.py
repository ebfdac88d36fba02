"""ECAPA-TDNN (Desplanques, Thienpondt, Demuynck, Interspeech 2020), with the sizes and state-dict
keys of the published system.

Published system: Mun et al., *Towards single integrated spoofing-aware speaker verification
embeddings*, Interspeech 2023. The released weights state no licence.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from sasv.core.errors import SasvError
from sasv.encoders.base import Encoder, EncoderOptions
from sasv.encoders.layers import Res2Block, attention_network, attentive_statistics
from sasv.encoders.memory_format import concatenated
from sasv.frontends.base import Frontend
from sasv.frontends.masks import keep

RES2_KERNEL = 3
RES2_DILATIONS = (2, 3, 4)
"""Dilations of the three SE-Res2 blocks (figure 2 of the paper)."""

TEST_OPTIONS = {
    "channels": 32,
    "scale": 4,
    "bottleneck": 8,
    "pooled": 48,
    "attention": 16,
    "embedding": 24,
}
"""Options of the preset "test" of every network with this trunk."""


@dataclass(frozen=True)
class EcapaOptions(EncoderOptions):
    """Options of ECAPA-TDNN; the defaults are published (15,444,544 parameters).

    Attributes:
        channels: channels of the convolutions.
        scale: number of channel groups in a Res2 block.
        bottleneck: channels inside the squeeze-excitation.
        pooled: channels that are pooled over time.
        attention: channels inside the attention of the pooling.
    """

    channels: int = 1024
    scale: int = 8
    bottleneck: int = 128
    pooled: int = 1536
    attention: int = 256

    def __post_init__(self) -> None:
        if self.channels % self.scale:
            raise SasvError(
                f"channels ({self.channels}) must be a multiple of scale ({self.scale})"
            )


class TdnnTrunk(Encoder):
    """The trunk that ECAPA-TDNN and SKA-TDNN share: three Res2 blocks, pooling, and projection."""

    frontend_attribute = "torchfbank"

    def add_trunk(self, inputs: int) -> None:
        """Make the layers of the trunk for ``inputs`` input channels."""
        s = self.options
        self.conv1 = nn.Conv1d(inputs, s.channels, 5, padding=2)
        self.relu = nn.ReLU()
        self.bn1 = nn.BatchNorm1d(s.channels)
        blocks = [
            Res2Block(s.channels, RES2_KERNEL, dilation, s.scale, s.bottleneck)
            for dilation in RES2_DILATIONS
        ]
        self.layer1, self.layer2, self.layer3 = blocks
        self.layer4 = nn.Conv1d(3 * s.channels, s.pooled, 1)
        self.attention = attention_network(s.pooled, s.attention)
        self.bn5 = nn.BatchNorm1d(2 * s.pooled)
        self.fc6 = nn.Linear(2 * s.pooled, s.embedding)
        self.bn6 = nn.BatchNorm1d(s.embedding)

    def trunk(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Compute embeddings (batch, embedding) from (batch, inputs, frames)."""
        x = self.bn1(self.relu(self.conv1(keep(x, mask))))
        x1 = self.layer1(x, mask)
        x2 = self.layer2(x + x1, mask)
        x3 = self.layer3(x + x1 + x2, mask)
        x = self.relu(self.layer4(concatenated([x1, x2, x3])))
        pooled = attentive_statistics(x, self.attention, mask)
        return self.bn6(self.fc6(self.bn5(pooled)))


class EcapaTdnn(TdnnTrunk):
    """ECAPA-TDNN: the features are the input of the trunk."""

    name = "ecapa-tdnn"
    Options = EcapaOptions
    presets = {
        "published": {},
        "tiny": {"channels": 128, "pooled": 256, "attention": 64, "bottleneck": 64},
        "test": TEST_OPTIONS,
    }

    def __init__(self, options: EcapaOptions, frontend: Frontend) -> None:
        super().__init__(options, frontend)
        self.add_trunk(frontend.feature_size)

    def network(self, features: Tensor, mask: Tensor | None) -> Tensor:
        return self.trunk(features, mask)
