"""Heads of self-supervised backbones, which compute one embedding from the outputs of all layers.

The input of each is a list of the layer outputs, each (batch, frames, units), and a mask (see
sasv.frontends.masks). The output is (batch, embedding).
"""

import torch
from torch import Tensor, nn

from sasv.encoders.pooling import AttentiveStatistics, softmax_over_time, temporal_statistics
from sasv.frontends.masks import keep


class StatisticsHead(nn.Module):
    """Weighted average of the layers with learnt weights, mean and standard deviation over time,
    and a linear layer.

    Args:
        layers: number of layer outputs.
        units: width of the layer outputs.
        embedding: dimension of the embeddings.
    """

    def __init__(self, layers: int, units: int, embedding: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(layers))
        self.linear = nn.Linear(2 * units, embedding)

    def forward(self, hidden: list[Tensor], mask: Tensor | None) -> Tensor:
        x = weighted_sum(hidden, self.weights).transpose(1, 2)
        return self.linear(temporal_statistics(x, mask, epsilon=1e-7))


class MhfaHead(nn.Module):
    """Multi-head factorised attentive pooling (Peng et al., SLT 2022).

    Keys and values are weighted averages of the layers, with separate learnt weights. Each head
    computes weights of the frames from the keys and averages the values with them.

    Args:
        layers: number of layer outputs.
        units: width of the layer outputs.
        embedding: dimension of the embeddings.
        heads: number of attention heads.
        compression: width of keys and values.
    """

    def __init__(
        self, layers: int, units: int, embedding: int, heads: int, compression: int
    ) -> None:
        super().__init__()
        self.weights_k = nn.Parameter(torch.ones(layers))
        self.weights_v = nn.Parameter(torch.ones(layers))
        self.cmp_linear_k = nn.Linear(units, compression)
        self.cmp_linear_v = nn.Linear(units, compression)
        self.att_head = nn.Linear(compression, heads)
        self.pooling_fc = nn.Linear(heads * compression, embedding)

    def forward(self, hidden: list[Tensor], mask: Tensor | None) -> Tensor:
        keys = self.cmp_linear_k(weighted_sum(hidden, self.weights_k))
        values = self.cmp_linear_v(weighted_sum(hidden, self.weights_v))
        weights = softmax_over_time(self.att_head(keys).transpose(1, 2), mask)
        values = keep(values.float().transpose(1, 2), mask).transpose(1, 2)
        return self.pooling_fc(torch.matmul(weights, values).flatten(1))


class AdapterMfaHead(nn.Module):
    """Multi-layer feature aggregation with adapters (Li et al. 2025): an adapter reduces the width
    of each layer output; the results are concatenated and pooled.

    Args:
        layers: number of layer outputs.
        units: width of the layer outputs.
        embedding: dimension of the embeddings.
        adapter: output width of each adapter, and width inside the attention.
    """

    def __init__(self, layers: int, units: int, embedding: int, adapter: int) -> None:
        super().__init__()
        self.adapter_layers = nn.ModuleList(
            nn.Sequential(
                nn.Linear(units, adapter),
                nn.LayerNorm(adapter),
                nn.ReLU(),
                nn.Linear(adapter, adapter),
            )
            for _ in range(layers)
        )
        self.pooling = AttentiveStatistics(layers * adapter, adapter)
        self.bottleneck = nn.Linear(2 * layers * adapter, embedding)

    def forward(self, hidden: list[Tensor], mask: Tensor | None) -> Tensor:
        narrow = [adapter(x) for adapter, x in zip(self.adapter_layers, hidden)]
        return self.bottleneck(self.pooling(torch.cat(narrow, dim=2).transpose(1, 2), mask))


def weighted_sum(hidden: list[Tensor], weights: Tensor) -> Tensor:
    """Return the average of the layer outputs, weighted by the softmax of ``weights`` (layers,)."""
    shares = torch.softmax(weights, dim=0)
    total = hidden[0] * shares[0]
    for share, x in zip(shares[1:], hidden[1:]):
        total = total + share * x
    return total
