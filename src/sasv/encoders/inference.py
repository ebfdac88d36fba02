"""Prepares an encoder for fast inference on a CPU. Its weights do not change, and its embeddings
are the same up to rounding.

``benchmarks/bench_peers.py`` measures the speed-up.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sasv.encoders.base import Encoder


class Pointwise(nn.Conv1d):
    """Convolution of width one over (batch, channels, frames), computed as a matrix product.

    With a thousand channels, the product takes two thirds of the time of the convolution.
    """

    @classmethod
    def of(cls, layer: nn.Conv1d) -> "Pointwise":
        """Return an equivalent of ``layer``, a convolution of width one, with the same
        parameters.
        """
        with torch.device("meta"):
            own = cls(layer.in_channels, layer.out_channels, 1)
        own.weight = layer.weight
        own.bias = layer.bias
        return own.train(layer.training)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.transpose(1, 2), self.weight.squeeze(2), self.bias).transpose(1, 2)


def prepare_for_inference(encoder: Encoder) -> None:
    """Change the memory layout of an encoder that will only be used for inference on a CPU.

    Convolutions of width one become matrix products, and two-dimensional convolutions use the
    channels-last memory format. Keys and values of the state dict do not change.
    """
    encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for parent in list(encoder.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Conv1d and _is_pointwise(child):
                parent.register_module(name, Pointwise.of(child))


def _is_pointwise(layer: nn.Conv1d) -> bool:
    return (
        layer.kernel_size == (1,)
        and layer.stride == (1,)
        and layer.padding == (0,)
        and layer.groups == 1
    )
