"""The channels-last memory format for encoders with one-dimensional convolutions.

The tensor cores of a GPU compute convolutions in the order (batch, frames, channels). PyTorch
offers this format only for two-dimensional convolutions; a one-dimensional convolution in half
precision converts its input and its output each time. The layers of this module are computed as
two-dimensional ones of height 1. Their shapes, weights, and state-dict keys stay the same.
"""

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Convolution = TypeVar("Convolution", bound=nn.Conv1d | nn.Conv2d)
Norm = TypeVar("Norm", bound=nn.BatchNorm1d | nn.BatchNorm2d)


def same_convolution(kind: type[Convolution], layer: nn.Conv1d | nn.Conv2d) -> Convolution:
    """Return a layer of another class with the sizes and the parameters of ``layer``, whose padding
    is zeros. The parameters are shared.
    """
    with torch.device("meta"):
        own = kind(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,  # type: ignore[arg-type]
            layer.stride,  # type: ignore[arg-type]
            layer.padding,  # type: ignore[arg-type]
            layer.dilation,  # type: ignore[arg-type]
            layer.groups,
        )
    own.weight = layer.weight
    own.bias = layer.bias
    own.train(layer.training)
    return own


def same_norm(kind: type[Norm], layer: nn.BatchNorm1d | nn.BatchNorm2d) -> Norm:
    """Return a layer of another class with the settings, parameters, and statistics of ``layer``,
    which are shared.
    """
    with torch.device("meta"):
        own = kind(
            layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats
        )
    own.weight = layer.weight
    own.bias = layer.bias
    own.running_mean = layer.running_mean
    own.running_var = layer.running_var
    own.num_batches_tracked = layer.num_batches_tracked
    own.train(layer.training)
    return own


class ChannelsLastConv1d(nn.Conv1d):
    """Convolution over (batch, channels, frames) that is computed in the channels-last format."""

    def forward(self, x: Tensor) -> Tensor:
        padding = self.padding if isinstance(self.padding, str) else (0, *self.padding)
        return F.conv2d(
            x.unsqueeze(2).contiguous(memory_format=torch.channels_last),
            self.weight.unsqueeze(2),
            self.bias,
            (1, *self.stride),
            padding,
            (1, *self.dilation),
            self.groups,
        ).squeeze(2)


class ChannelsLastBatchNorm1d(nn.BatchNorm1d):
    """Batch norm over (batch, channels, frames) or (batch, channels) that keeps the memory format
    of its input.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        return

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() == 2:
            return super().forward(input)
        return super().forward(input.unsqueeze(2)).squeeze(2)


def use_channels_last(encoder: nn.Module) -> None:
    """Change the memory layout of an encoder, in place, so that its convolutions use the
    channels-last format.
    """
    encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for parent in list(encoder.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Conv1d and child.padding_mode == "zeros":
                parent.register_module(name, same_convolution(ChannelsLastConv1d, child))
            elif type(child) is nn.BatchNorm1d:
                parent.register_module(name, same_norm(ChannelsLastBatchNorm1d, child))


def concatenated(parts: list[Tensor]) -> Tensor:
    """Concatenate tensors (batch, channels, frames) along their channels.

    They keep the channels-last format, which ``torch.cat`` keeps only for four dimensions.
    """
    return torch.cat([part.unsqueeze(2) for part in parts], dim=1).squeeze(2)
