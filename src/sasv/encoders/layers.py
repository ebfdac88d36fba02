"""Layers that several encoders use. For ``mask``, see sasv.frontends.masks."""

import math

import torch
from torch import Tensor, nn

from sasv.encoders.memory_format import concatenated
from sasv.encoders.pooling import convolve_with_context
from sasv.frontends.masks import keep, masked_mean, masked_variance

VARIANCE_FLOOR = 1e-4


class SqueezeExcitation(nn.Module):
    """Squeeze-excitation (Hu et al. 2018) of (batch, channels, frames): channels are scaled by
    gates computed from their means over time.
    """

    def __init__(self, channels: int, bottleneck: int) -> None:
        super().__init__()
        # Index 0 is the average pooling of the published module, so that the keys stay the same.
        self.se = nn.Sequential(
            nn.Identity(),
            nn.Conv1d(channels, bottleneck, 1),
            nn.ReLU(),
            nn.Conv1d(bottleneck, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return x * self.se(masked_mean(x, mask))


class Res2Block(nn.Module):
    """SE-Res2 block of ECAPA-TDNN (Desplanques et al. 2020) over (batch, channels, frames). The
    order is always convolution, ReLU, batch norm.
    """

    def __init__(
        self, channels: int, kernel: int, dilation: int, scale: int, bottleneck: int
    ) -> None:
        super().__init__()
        self.width = channels // scale
        self.conv1 = nn.Conv1d(channels, self.width * scale, 1)
        self.bn1 = nn.BatchNorm1d(self.width * scale)
        padding = kernel // 2 * dilation
        self.convs = nn.ModuleList(
            nn.Conv1d(self.width, self.width, kernel, dilation=dilation, padding=padding)
            for _ in range(scale - 1)
        )
        self.bns = nn.ModuleList(nn.BatchNorm1d(self.width) for _ in range(scale - 1))
        self.conv3 = nn.Conv1d(self.width * scale, channels, 1)
        self.bn3 = nn.BatchNorm1d(channels)
        self.relu = nn.ReLU()
        self.se = SqueezeExcitation(channels, bottleneck)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        chunks = torch.split(self.bn1(self.relu(self.conv1(x))), self.width, dim=1)
        outputs: list[Tensor] = []
        for index, (conv, norm) in enumerate(zip(self.convs, self.bns)):
            current = chunks[index] if index == 0 else outputs[-1] + chunks[index]
            outputs.append(norm(self.relu(conv(keep(current, mask)))))
        outputs.append(chunks[-1])
        mixed = self.bn3(self.relu(self.conv3(concatenated(outputs))))
        return self.se(mixed, mask) + x


def attention_network(channels: int, bottleneck: int) -> nn.Sequential:
    """Return the network that computes the attention of the pooling, with ``3 * channels`` inputs
    and one weight per channel.
    """
    return nn.Sequential(
        nn.Conv1d(3 * channels, bottleneck, 1),
        nn.ReLU(),
        nn.BatchNorm1d(bottleneck),
        nn.Tanh(),
        nn.Conv1d(bottleneck, channels, 1),
        nn.Softmax(dim=2),
    )


def attention_logits(
    attention: nn.Sequential, x: Tensor, mean: Tensor, deviation: Tensor
) -> Tensor:
    """Return the output of the attention network before its softmax, float32 (batch, channels,
    frames).
    """
    first = attention[0]
    assert isinstance(first, nn.Conv1d)
    return attention[1:-1](convolve_with_context(first, x, mean, deviation)).float()


def attentive_statistics(x: Tensor, attention: nn.Sequential, mask: Tensor | None) -> Tensor:
    """Pool (batch, channels, frames) to (batch, 2 * channels), the weighted mean and standard
    deviation over time.

    The input of the attention is each frame together with the mean and the unbiased standard
    deviation over all frames. Statistics are computed in float32, even under autocast, because
    differences of squares lose their precision in float16.
    """
    x = x.float()
    mean = masked_mean(x, mask)
    deviation = masked_variance(x, mask).clamp(min=VARIANCE_FLOOR).sqrt()
    logits = attention_logits(attention, x, mean, deviation)
    weights = attention[-1](keep(logits, mask, -math.inf))
    x = keep(x, mask)
    pooled = (x * weights).sum(dim=2)
    squares = (x.square() * weights).sum(dim=2)
    return torch.cat((pooled, (squares - pooled.square()).clamp(min=VARIANCE_FLOOR).sqrt()), dim=1)


def precise(x: Tensor, training: bool) -> Tensor:
    """Return what a spoof axis reads in the precision of its sum, whose terms are a hundred times
    as large as the sum itself: double where the device has it, but not in training.
    """
    return x if training or x.device.type == "mps" else x.double()


class SpoofAxis(nn.Module):
    """Adds a dimension to an embedding that represents the evidence for a spoof.

    The added value is 0 if a linear spoof head is certain that the speech is bona fide, so that the
    cosines of such speech do not change. It grows with the evidence h for a spoof, so that the
    cosine with a voiceprint is multiplied by 1 / sqrt(1 + h^2). See
    ``sasv.calibration.fit_spoof_head``.

    Args:
        inputs: number of inputs of the head: the dimension of the embedding, or that of ``inner``.
        heads: number of spoof heads, each for other kinds of spoofs; their evidence is added.
    """

    def __init__(self, inputs: int, heads: int = 1) -> None:
        super().__init__()
        # The weights of the heads are in one vector, which files with 8-bit weights keep exact. One
        # head has a bias without a dimension, as in the checkpoints of older versions.
        weight = torch.empty(heads * inputs)
        self.weight = nn.Parameter(nn.init.normal_(weight, std=inputs**-0.5))
        self.bias = nn.Parameter(torch.zeros(() if heads == 1 else heads))

    def forward(self, embeddings: Tensor, inner: Tensor | None = None) -> Tensor:
        """Return embeddings (batch, dimension + 1) for embeddings (batch, dimension).

        Args:
            embeddings: (batch, dimension).
            inner: (batch, inputs), input of the head; None takes the direction of the embedding.
        """
        length = torch.linalg.vector_norm(embeddings, dim=1, keepdim=True).clamp(min=1e-9)
        read = embeddings / length if inner is None else inner
        read = precise(read, self.training)
        weight = self.weight.reshape(-1, read.shape[1]).to(read)
        evidence = (read @ weight.T + self.bias.to(read)).to(length)
        found = torch.relu(evidence).sum(dim=1, keepdim=True)
        return torch.cat((embeddings, length * found), dim=1)
