"""ECAPA-TDNN (Desplanques, Thienpondt, Demuynck, Interspeech 2020), sizes and names of the published system."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sasv.core.errors import SasvError
from sasv.encoders import base
from sasv.encoders.layers import Res2Block, attention_network, attentive_statistics
from sasv.frontends.masks import keep


@dataclass(frozen=True)
class EcapaSizes(base.EncoderSizes):
    """Sizes of ECAPA-TDNN; the defaults are published (15,444,544 parameters)."""

    channels: int = 1024
    scale: int = 8
    bottleneck: int = 128
    pooled: int = 1536
    attention: int = 256


class TdnnTrunk(base.Encoder):
    """The trunk that ECAPA-TDNN and SKA-TDNN share: three Res2 blocks, pooling, 192-dimensional embedding."""

    def add_trunk(self, inputs: int) -> None:
        """Make the layers, ``inputs`` being the channels they are fed."""
        s = self.sizes
        if s.channels % s.scale:
            raise SasvError(f"channels ({s.channels}) must be a multiple of scale ({s.scale})")
        self.conv1 = nn.Conv1d(inputs, s.channels, 5, padding=2)
        self.relu = nn.ReLU()
        self.bn1 = nn.BatchNorm1d(s.channels)
        self.layer1 = Res2Block(s.channels, 3, 2, s.scale, s.bottleneck)
        self.layer2 = Res2Block(s.channels, 3, 3, s.scale, s.bottleneck)
        self.layer3 = Res2Block(s.channels, 3, 4, s.scale, s.bottleneck)
        self.layer4 = nn.Conv1d(3 * s.channels, s.pooled, 1)
        self.attention = attention_network(s.pooled, s.attention)
        self.bn5 = nn.BatchNorm1d(2 * s.pooled)
        self.fc6 = nn.Linear(2 * s.pooled, s.embedding)
        self.bn6 = nn.BatchNorm1d(s.embedding)

    def trunk(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Turn (batch, inputs, frames) into (batch, embedding)."""
        x = self.bn1(self.relu(self.conv1(keep(x, mask))))
        x1 = self.layer1(x, mask)
        x2 = self.layer2(x + x1, mask)
        x3 = self.layer3(x + x1 + x2, mask)
        x = self.relu(self.layer4(torch.cat((x1, x2, x3), dim=1)))
        pooled = attentive_statistics(x, self.attention, mask)
        return self.bn6(self.fc6(self.bn5(pooled)))

    @staticmethod
    def trunk_sizes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
        """Read the sizes of the trunk from the shapes of its entries."""
        return {
            "mels": shapes["torchfbank.1.mel_scale.fb"][1],
            "embedding": shapes["fc6.weight"][0],
            "channels": shapes["conv1.weight"][0],
            "scale": sum(key.startswith("layer1.convs.") and key.endswith(".weight") for key in shapes) + 1,
            "bottleneck": shapes["layer1.se.se.1.weight"][0],
            "pooled": shapes["layer4.weight"][0],
            "attention": shapes["attention.0.weight"][0],
        }


class EcapaTdnn(TdnnTrunk):
    """ECAPA-TDNN: log-mels straight into the trunk."""

    Sizes = EcapaSizes

    def __init__(self, sizes: EcapaSizes | None = None) -> None:
        super().__init__(sizes)
        self.add_frontend()
        self.add_trunk(self.sizes.mels)

    def network(self, features: Tensor, mask: Tensor | None, frames: Tensor | None) -> Tensor:
        return self.trunk(features, mask)

    @classmethod
    def recognises(cls, names: Collection[str]) -> bool:
        return "layer4.weight" in names and "frt_conv1.weight" not in names

    @classmethod
    def sizes_of(cls, shapes: Mapping[str, tuple[int, ...]]) -> EcapaSizes:
        return EcapaSizes(**cls.trunk_sizes(shapes))
