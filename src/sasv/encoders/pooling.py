"""Pooling over time that several encoders use. For ``mask``, see sasv.frontends.masks.

Statistics are computed in float32, even under autocast, because differences of squares lose their
precision in float16; those of a float64 tensor, in float64.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sasv.frontends.masks import keep, masked_mean, masked_variance


def temporal_statistics(x: Tensor, mask: Tensor | None, epsilon: float) -> Tensor:
    """Pool (batch, channels, frames) to (batch, 2 * channels): the mean, and the square root of the
    variance plus ``epsilon``.
    """
    x = x if x.dtype == torch.float64 else x.float()
    deviation = (masked_variance(x, mask) + epsilon).sqrt()
    return torch.cat((masked_mean(x, mask), deviation), dim=1).squeeze(2)


def softmax_over_time(logits: Tensor, mask: Tensor | None) -> Tensor:
    """Return the softmax of the logits over the real frames: weights (batch, channels, frames) that
    sum to one and are zero in the padding.
    """
    return torch.softmax(keep(logits.float(), mask, -math.inf), dim=2)


def weighted_statistics(x: Tensor, weights: Tensor, floor: float) -> Tensor:
    """Pool (batch, channels, frames) to the weighted mean and standard deviation, (batch, 2 *
    channels). The variance is limited to at least ``floor``.

    ``x`` must be finite in the padding too; the weights, (batch, channels, frames), must sum to one
    over time.
    """
    mean = (x * weights).sum(dim=2)
    variance = (x.square() * weights).sum(dim=2) - mean.square()
    return torch.cat((mean, variance.clamp(min=floor).sqrt()), dim=1)


def convolve_with_context(layer: nn.Conv1d, x: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Apply a convolution of width one to each frame, concatenated with the mean and the standard
    deviation over time.

    The last two are the same for all frames, so that their part, two thirds of the arithmetic, is
    computed only once. In training on a CPU they are concatenated, because the rounding would
    differ and trainings must reproduce the weights of earlier versions.

    Args:
        layer: convolution with ``3 * channels`` input channels.
        x: (batch, channels, frames).
        mean: (batch, channels, 1).
        deviation: (batch, channels, 1).

    Returns:
        (batch, output channels, frames).
    """
    if layer.training and x.device.type == "cpu":
        return layer(torch.cat((x, mean.expand_as(x), deviation.expand_as(x)), dim=1))
    own, of_mean, of_deviation = layer.weight.chunk(3, dim=1)
    context = F.conv1d(mean, of_mean, layer.bias) + F.conv1d(deviation, of_deviation)
    return F.conv1d(x, own) + context


class AttentiveStatistics(nn.Module):
    """Attentive statistics pooling (Okabe et al. 2018) with separate weights for each channel,
    which two convolutions of width one compute.

    Args:
        channels: channels of the features.
        bottleneck: channels between the two convolutions.
    """

    def __init__(self, channels: int, bottleneck: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(
            nn.Conv1d(channels, bottleneck, 1),
            nn.ReLU(),
            nn.BatchNorm1d(bottleneck),
            nn.Conv1d(bottleneck, channels, 1),
        )

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Pool (batch, channels, frames) to (batch, 2 * channels)."""
        x = keep(x.float(), mask)
        return weighted_statistics(x, softmax_over_time(self.attention(x), mask), floor=1e-5)


class TanhAttentiveStatistics(nn.Module):
    """Attentive statistics pooling of WeSpeaker, with a hyperbolic tangent between two convolutions
    of width one.

    Args:
        channels: channels of the features.
        bottleneck: channels between the two convolutions.
        context: whether the attention also sees the mean and the standard deviation over time.
    """

    def __init__(self, channels: int, bottleneck: int, context: bool) -> None:
        super().__init__()
        self.context = context
        self.linear1 = nn.Conv1d(3 * channels if context else channels, bottleneck, 1)
        self.linear2 = nn.Conv1d(bottleneck, channels, 1)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Pool (batch, channels, frames) to (batch, 2 * channels)."""
        x = keep(x.float(), mask)
        if self.context:
            deviation = (masked_variance(x, mask) + 1e-7).sqrt()
            hidden = convolve_with_context(self.linear1, x, masked_mean(x, mask), deviation)
        else:
            hidden = self.linear1(x)
        logits = self.linear2(torch.tanh(hidden))
        return weighted_statistics(x, softmax_over_time(logits, mask), floor=1e-7)
