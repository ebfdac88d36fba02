"""ECAPA-TDNN of WeSpeaker, whose blocks are chained and whose attentive pooling has no batch norm.

The Res2 blocks are those of the published system (``sasv.encoders.layers``);
``sasv.checkpoints.formats`` renames the state-dict keys of WeSpeaker.
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from sasv.encoders.base import Encoder
from sasv.encoders.ecapa import RES2_DILATIONS, RES2_KERNEL, TEST_OPTIONS, EcapaOptions
from sasv.encoders.layers import Res2Block
from sasv.encoders.memory_format import concatenated
from sasv.encoders.pooling import TanhAttentiveStatistics
from sasv.frontends.base import Frontend
from sasv.frontends.masks import keep


@dataclass(frozen=True)
class EcapaWespeakerOptions(EcapaOptions):
    """Options of WeSpeaker's ECAPA-TDNN; the defaults are those of its larger model (14,657,088
    parameters). The smaller one has 512 channels (6,190,720 parameters).

    Attributes:
        context: whether the attention also sees the mean and standard deviation over time.
        embedding_norm: whether the network ends with a batch norm.
    """

    attention: int = 128
    context: bool = True
    embedding_norm: bool = False


class EcapaWespeaker(Encoder):
    """ECAPA-TDNN of WeSpeaker."""

    name = "ecapa-wespeaker"
    Options = EcapaWespeakerOptions
    presets = {
        "published": {},
        "512": {"channels": 512},
        "tiny": {"channels": 128, "pooled": 256, "attention": 64, "bottleneck": 64},
        "test": TEST_OPTIONS,
    }
    default_frontend = "kaldi"
    default_frontend_options = {"window": "hamming", "scale": 32768.0}

    def __init__(self, options: EcapaWespeakerOptions, frontend: Frontend) -> None:
        super().__init__(options, frontend)
        o = options
        self.conv1 = nn.Conv1d(frontend.feature_size, o.channels, 5, padding=2)
        self.bn1 = nn.BatchNorm1d(o.channels)
        blocks = [
            Res2Block(o.channels, RES2_KERNEL, dilation, o.scale, o.bottleneck)
            for dilation in RES2_DILATIONS
        ]
        self.layer1, self.layer2, self.layer3 = blocks
        self.layer4 = nn.Conv1d(3 * o.channels, o.pooled, 1)
        self.pooling = TanhAttentiveStatistics(o.pooled, o.attention, o.context)
        self.bn5 = nn.BatchNorm1d(2 * o.pooled)
        self.fc6 = nn.Linear(2 * o.pooled, o.embedding)
        self.bn6 = nn.BatchNorm1d(o.embedding) if o.embedding_norm else nn.Identity()

    def network(self, features: Tensor, mask: Tensor | None) -> Tensor:
        x = self.bn1(F.relu(self.conv1(keep(features, mask))))
        x1 = self.layer1(x, mask)
        x2 = self.layer2(x1, mask)
        x3 = self.layer3(x2, mask)
        x = F.relu(self.layer4(concatenated([x1, x2, x3])))
        return self.bn6(self.fc6(self.bn5(self.pooling(x, mask))))
