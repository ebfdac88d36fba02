"""AASIST and AASIST-L (Jung et al., ICASSP 2022): a countermeasure with graph attention over
spectrum and time.

Its input is the raw waveform of about four seconds: longer recordings are cut, shorter ones are
repeated. The embedding is the hidden vector before the last layer. ``scores`` applies that layer,
which distinguishes bona fide from spoofed speech. The state-dict keys are those of the authors.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sasv.core.errors import SasvError
from sasv.core.options import PositiveFloat, Range
from sasv.encoders.base import Encoder, EncoderOptions
from sasv.frontends.base import Frontend

FILTERS = 70
"""Number of band-pass filters in the first layer."""
RATE = 16000
POOLED_FILTERS = FILTERS // 3
VIEWS = 5
"""Number of parts of the embedding: maximum and mean over the temporal and over the spectral nodes,
and the master node.
"""
INPUT_DROPOUT = 0.2
GRAPH_DROPOUT = 0.3
WAY_DROPOUT = 0.2
OUTPUT_DROPOUT = 0.5
BONA_FIDE = 1
"""Index of the class whose logit is the score."""


@dataclass(frozen=True)
class AasistOptions(EncoderOptions):
    """Options of AASIST; the defaults are those of the larger model (297,866 parameters).

    Attributes:
        embedding: dimension of the embeddings; must be five times ``graph_units``.
        samples: length of the network's input in samples.
        kernel: taps of the band-pass filters; an even number is increased by one.
        channels: channels of the convolutions in the first and in the second half of the blocks.
        graph_units: width of the graphs over spectrum and time together.
        ratios: shares of the nodes that are kept in the spectral graph, in the temporal graph, and
            in the graphs over both.
        temperatures: temperatures of the attention in the spectral graph, in the temporal graph,
            and in the graphs over both.
    """

    embedding: int = 160
    samples: Annotated[int, Range(8000, 1_000_000)] = 64600
    kernel: int = 128
    channels: tuple[int, ...] = (32, 64)
    graph_units: int = 32
    ratios: Annotated[tuple[float, ...], Range(0, 1, above=0)] = (0.5, 0.7, 0.5)
    temperatures: tuple[PositiveFloat, ...] = (2.0, 2.0, 100.0)

    def __post_init__(self) -> None:
        if self.embedding != VIEWS * self.graph_units:
            raise SasvError(
                f"embedding ({self.embedding}) must be {VIEWS} times graph_units "
                f"({self.graph_units})"
            )
        if len(self.channels) != 2 or len(self.ratios) != 3 or len(self.temperatures) != 3:
            raise SasvError("AASIST needs 2 numbers of channels, 3 ratios and 3 temperatures")


def band_pass_filters(kernel: int) -> Tensor:
    """Return the filters of the first layer, (70, 1, taps): windowed sinc functions with band edges
    on the mel scale.
    """
    taps = kernel + 1 - kernel % 2
    top = 2595.0 * math.log10(1.0 + (RATE / 2) / 700.0)
    edges = 700.0 * (
        10.0 ** (torch.linspace(0.0, top, FILTERS + 1, dtype=torch.float64) / 2595.0) - 1.0
    )
    time = torch.arange(taps, dtype=torch.float64) - taps // 2
    cutoffs = 2.0 * edges[:, None] / RATE
    low_pass = cutoffs * torch.sinc(cutoffs * time)
    window = torch.hamming_window(taps, periodic=False, dtype=torch.float64)
    return ((low_pass[1:] - low_pass[:-1]) * window)[:, None].float()


class _ResidualBlock(nn.Module):
    """Two convolutions over spectrum and time with a skip connection; time is divided by three."""

    def __init__(self, inputs: int, outputs: int, first: bool) -> None:
        super().__init__()
        if not first:
            # Published files have this layer, but the published network does not use its output.
            self.bn1 = nn.BatchNorm2d(inputs).requires_grad_(False)
        self.conv1 = nn.Conv2d(inputs, outputs, (2, 3), padding=(1, 1))
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, (2, 3), padding=(0, 1))
        self.widen = inputs != outputs
        if self.widen:
            self.conv_downsample = nn.Conv2d(inputs, outputs, (1, 3), padding=(0, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.selu(self.bn2(self.conv1(x))))
        skip = self.conv_downsample(x) if self.widen else x
        return F.max_pool2d(y + skip, (1, 3))


def _weights(size: int) -> nn.Parameter:
    return nn.Parameter(nn.init.xavier_normal_(torch.empty(size, 1)))


def _normed(norm: nn.BatchNorm1d, x: Tensor) -> Tensor:
    """Apply batch norm to the last axis of (batch, nodes, units)."""
    return norm(x.transpose(1, 2)).transpose(1, 2)


class _GraphAttention(nn.Module):
    """Attention between all nodes: (batch, nodes, inputs) to (batch, nodes, outputs)."""

    def __init__(self, inputs: int, outputs: int, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.att_proj = nn.Linear(inputs, outputs)
        self.att_weight = _weights(outputs)
        self.proj_with_att = nn.Linear(inputs, outputs)
        self.proj_without_att = nn.Linear(inputs, outputs)
        self.bn = nn.BatchNorm1d(outputs)
        self.drop = nn.Dropout(INPUT_DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(x)
        pairs = torch.tanh(self.att_proj(x[:, :, None] * x[:, None]))
        weights = torch.softmax(torch.matmul(pairs, self.att_weight) / self.temperature, dim=-2)
        y = self.proj_with_att(torch.matmul(weights.squeeze(-1), x)) + self.proj_without_att(x)
        return F.selu(_normed(self.bn, y))


class _HeterogeneousAttention(nn.Module):
    """Attention between nodes of two types, with separate weights for each pair of types, and a
    master node.
    """

    def __init__(self, inputs: int, outputs: int, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.proj_type1 = nn.Linear(inputs, inputs)
        self.proj_type2 = nn.Linear(inputs, inputs)
        self.att_proj = nn.Linear(inputs, outputs)
        self.att_projM = nn.Linear(inputs, outputs)
        self.att_weight11 = _weights(outputs)
        self.att_weight22 = _weights(outputs)
        self.att_weight12 = _weights(outputs)
        self.att_weightM = _weights(outputs)
        self.proj_with_att = nn.Linear(inputs, outputs)
        self.proj_without_att = nn.Linear(inputs, outputs)
        self.proj_with_attM = nn.Linear(inputs, outputs)
        self.proj_without_attM = nn.Linear(inputs, outputs)
        self.bn = nn.BatchNorm1d(outputs)
        self.drop = nn.Dropout(INPUT_DROPOUT)

    def forward(self, x1: Tensor, x2: Tensor, master: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        first = x1.shape[1]
        x = self.drop(torch.cat((self.proj_type1(x1), self.proj_type2(x2)), dim=1))
        pairs = torch.tanh(self.att_proj(x[:, :, None] * x[:, None]))
        same1 = torch.matmul(pairs[:, :first, :first], self.att_weight11)
        same2 = torch.matmul(pairs[:, first:, first:], self.att_weight22)
        across12 = torch.matmul(pairs[:, :first, first:], self.att_weight12)
        across21 = torch.matmul(pairs[:, first:, :first], self.att_weight12)
        rows = (torch.cat((same1, across12), dim=2), torch.cat((across21, same2), dim=2))
        weights = torch.softmax(torch.cat(rows, dim=1) / self.temperature, dim=-2)
        y = self.proj_with_att(torch.matmul(weights.squeeze(-1), x)) + self.proj_without_att(x)
        y = F.selu(_normed(self.bn, y))
        return y[:, :first], y[:, first:], self._master(x, master)

    def _master(self, x: Tensor, master: Tensor) -> Tensor:
        logits = torch.matmul(torch.tanh(self.att_projM(x * master)), self.att_weightM)
        weights = torch.softmax(logits / self.temperature, dim=-2)
        seen = torch.matmul(weights.transpose(1, 2), x)
        return self.proj_with_attM(seen) + self.proj_without_attM(master)


class _GraphPool(nn.Module):
    """Keeps a share of the nodes, those with the highest scores, and weights them by their
    scores.
    """

    def __init__(self, ratio: float, inputs: int) -> None:
        super().__init__()
        self.ratio = ratio
        self.proj = nn.Linear(inputs, 1)
        self.drop = nn.Dropout(GRAPH_DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        scores = torch.sigmoid(self.proj(self.drop(x)))
        kept = max(int(x.shape[1] * self.ratio), 1)
        nodes = torch.topk(scores, kept, dim=1).indices.expand(-1, -1, x.shape[2])
        return torch.gather(x * scores, 1, nodes)


class Aasist(Encoder):
    """AASIST."""

    name = "aasist"
    Options = AasistOptions
    presets = {
        "published": {},
        "light": {"channels": (32, 24), "ratios": (0.4, 0.5, 0.7)},
        "tiny": {"channels": (8, 16), "samples": 32000},
        "test": {"channels": (4, 8), "samples": 8000, "graph_units": 8, "embedding": 40},
    }
    default_frontend = "waveform"
    filters: Tensor

    def __init__(self, options: AasistOptions, frontend: Frontend) -> None:
        super().__init__(options, frontend)
        if frontend.feature_size != 1 or frontend.sample_rate != RATE:
            raise SasvError(
                f"AASIST needs the waveform at {RATE} Hz; choose the front-end waveform"
            )
        o = options
        narrow, wide = o.channels
        self.register_buffer("filters", band_pass_filters(o.kernel), persistent=False)
        self.first_bn = nn.BatchNorm2d(1)
        widths = [
            (1, narrow),
            (narrow, narrow),
            (narrow, wide),
            (wide, wide),
            (wide, wide),
            (wide, wide),
        ]
        self.encoder = nn.Sequential(
            *[
                nn.Sequential(_ResidualBlock(*pair, first=index == 0))
                for index, pair in enumerate(widths)
            ]
        )
        self.pos_S = nn.Parameter(torch.randn(1, POOLED_FILTERS, wide))
        self.master1 = nn.Parameter(torch.randn(1, 1, wide))
        self.master2 = nn.Parameter(torch.randn(1, 1, wide))
        self.GAT_layer_S = _GraphAttention(wide, wide, o.temperatures[0])
        self.GAT_layer_T = _GraphAttention(wide, wide, o.temperatures[1])
        units = o.graph_units
        self.HtrgGAT_layer_ST11 = _HeterogeneousAttention(wide, units, o.temperatures[2])
        self.HtrgGAT_layer_ST12 = _HeterogeneousAttention(units, units, o.temperatures[2])
        self.HtrgGAT_layer_ST21 = _HeterogeneousAttention(wide, units, o.temperatures[2])
        self.HtrgGAT_layer_ST22 = _HeterogeneousAttention(units, units, o.temperatures[2])
        self.pool_S = _GraphPool(o.ratios[0], wide)
        self.pool_T = _GraphPool(o.ratios[1], wide)
        self.pool_hS1 = _GraphPool(o.ratios[2], units)
        self.pool_hT1 = _GraphPool(o.ratios[2], units)
        self.pool_hS2 = _GraphPool(o.ratios[2], units)
        self.pool_hT2 = _GraphPool(o.ratios[2], units)
        self.drop_way = nn.Dropout(WAY_DROPOUT)
        self.drop = nn.Dropout(OUTPUT_DROPOUT)
        # The losses of sasv train the embeddings; this layer computes scores of released weights.
        self.out_layer = nn.Linear(VIEWS * units, 2).requires_grad_(False)

    def network(self, features: Tensor, mask: Tensor | None) -> Tensor:
        x = F.conv1d(self._excerpt(features, mask), self.filters)
        x = F.max_pool2d(x[:, None].abs(), (3, 3))
        x = self.encoder(F.selu(self.first_bn(x)))
        spectrum = self.pool_S(self.GAT_layer_S(x.abs().amax(dim=3).transpose(1, 2) + self.pos_S))
        time = self.pool_T(self.GAT_layer_T(x.abs().amax(dim=2).transpose(1, 2)))
        one = self._branch(1, time, spectrum)
        two = self._branch(2, time, spectrum)
        time, spectrum, master = (torch.maximum(a, b) for a, b in zip(one, two))
        views = (
            time.abs().amax(dim=1),
            time.mean(dim=1),
            spectrum.abs().amax(dim=1),
            spectrum.mean(dim=1),
            master.squeeze(1),
        )
        return torch.cat(views, dim=1)

    def _branch(self, number: Literal[1, 2], time: Tensor, spectrum: Tensor) -> list[Tensor]:
        first = self.HtrgGAT_layer_ST11 if number == 1 else self.HtrgGAT_layer_ST21
        second = self.HtrgGAT_layer_ST12 if number == 1 else self.HtrgGAT_layer_ST22
        pool_time = self.pool_hT1 if number == 1 else self.pool_hT2
        pool_spectrum = self.pool_hS1 if number == 1 else self.pool_hS2
        start = self.master1 if number == 1 else self.master2
        time, spectrum, master = first(time, spectrum, start.expand(time.shape[0], -1, -1))
        nodes = (pool_time(time), pool_spectrum(spectrum), master)
        return [self.drop_way(a + b) for a, b in zip(nodes, second(*nodes))]

    def _excerpt(self, waves: Tensor, mask: Tensor | None) -> Tensor:
        """Cut or repeat each waveform of (batch, 1, samples) to the length of the network's
        input.
        """
        at = torch.arange(self.options.samples, device=waves.device)[None, None, :]
        lengths = waves.shape[2] if mask is None else mask.sum(dim=2, keepdim=True)
        return torch.gather(waves, 2, (at % lengths).expand(waves.shape[0], 1, -1))

    def scores(self, embeddings: Tensor) -> Tensor:
        """Return the countermeasure scores (batch,) of embeddings (batch, dimension); higher means
        more likely bona fide.
        """
        return self.out_layer(self.drop(embeddings))[:, BONA_FIDE]
