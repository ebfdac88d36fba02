"""Prepares an encoder for fast inference on a CPU. Its weights do not change, and its embeddings
are the same up to rounding.

``benchmarks/bench_peers.py`` measures the speed-up.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sasv.encoders.base import Encoder
from sasv.encoders.memory_format import same_convolution, same_norm


class NormedConv2d(nn.Conv2d):
    """Convolution over (batch, channels, bands, frames) that applies the batch norm behind it, in
    evaluation mode, by its weights and its bias.

    The batch norm takes longer than the convolution where there are few channels.
    """

    normed_weight: Tensor
    normed_bias: Tensor

    @classmethod
    def of(cls, layer: nn.Conv2d, norm: nn.BatchNorm2d) -> "NormedConv2d":
        """Return an equivalent of ``layer`` and ``norm``, with the parameters of ``layer``."""
        assert norm.running_mean is not None and norm.running_var is not None
        own = same_convolution(cls, layer)
        with torch.no_grad():
            scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
            weight = layer.weight * scale[:, None, None, None]
            bias = norm.bias - scale * norm.running_mean
            if layer.bias is not None:
                bias = bias + scale * layer.bias
        own.register_buffer("normed_weight", weight, persistent=False)
        own.register_buffer("normed_bias", bias, persistent=False)
        return own

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.normed_weight, self.normed_bias)


class AppliedNorm(nn.BatchNorm2d):
    """Batch norm that a convolution has applied."""

    def forward(self, input: Tensor) -> Tensor:
        return input


class Pointwise(nn.Conv1d):
    """Convolution of width one over (batch, channels, frames), computed as one matrix product.

    With a thousand channels, the product takes two thirds of the time of the convolution.
    """

    def forward(self, x: Tensor) -> Tensor:
        # All frames of the batch are rows of one matrix, because PyTorch multiplies batches of
        # matrices in bfloat16 slowly.
        rows = x.transpose(1, 2).flatten(0, 1)
        product = F.linear(rows, self.weight.squeeze(2), self.bias)
        return product.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)


def prepare_for_inference(encoder: Encoder) -> None:
    """Change the memory layout of an encoder that will only be used for inference on a CPU.

    Convolutions of width one become matrix products, and two-dimensional convolutions use the
    channels-last memory format and apply the batch norms behind them. Keys and values of the state
    dict do not change; a later change of the weights has no effect on these convolutions.
    """
    encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for parent in list(encoder.modules()):
        for conv, norm in _normed(parent):
            layer = parent.get_submodule(conv)
            batch_norm = parent.get_submodule(norm)
            if type(layer) is not nn.Conv2d or type(batch_norm) is not nn.BatchNorm2d:
                continue
            if _can_be_joined(layer, batch_norm):
                parent.register_module(conv, NormedConv2d.of(layer, batch_norm))
                parent.register_module(norm, same_norm(AppliedNorm, batch_norm))
    for parent in list(encoder.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Conv1d and _is_pointwise(child):
                parent.register_module(name, same_convolution(Pointwise, child))


def _normed(parent: nn.Module) -> list[tuple[str, str]]:
    """Return the names of layers and of those that are applied to their outputs: in a sequence,
    and in a module with the attribute ``norm_behind``, a dictionary.
    """
    if type(parent) is nn.Sequential:
        names = list(parent._modules)
        return list(zip(names, names[1:]))
    return list(getattr(parent, "norm_behind", {}).items())


def _can_be_joined(layer: nn.Conv2d, norm: nn.BatchNorm2d) -> bool:
    return layer.padding_mode == "zeros" and norm.affine and norm.track_running_stats


def _is_pointwise(layer: nn.Conv1d) -> bool:
    return (
        layer.kernel_size == (1,)
        and layer.stride == (1,)
        and layer.padding == (0,)
        and layer.groups == 1
    )
