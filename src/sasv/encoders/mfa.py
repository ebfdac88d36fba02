"""MFA-Conformer (Zhang et al., Interspeech 2022): the outputs of all Conformer blocks, concatenated
and pooled.

Published system and licence: see ``sasv.encoders.ecapa``.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sasv.core.errors import SasvError
from sasv.encoders.base import Encoder, EncoderOptions
from sasv.encoders.layers import attention_network, attentive_statistics
from sasv.frontends.base import Frontend
from sasv.frontends.masks import keep, reduced

NORM_EPS = 1e-12
DROPOUT = 0.1


@dataclass(frozen=True)
class MfaOptions(EncoderOptions):
    """Options of MFA-Conformer; the defaults are published (21,924,288 parameters).

    Attributes:
        units: width of the Conformer blocks.
        heads: number of attention heads.
        blocks: number of Conformer blocks.
        feedforward: hidden units of the feed-forward layers.
        kernel: width of the depthwise convolution in frames; an odd number.
        attention: channels inside the attention of the pooling.
    """

    units: int = 256
    heads: int = 4
    blocks: int = 6
    feedforward: int = 2048
    kernel: int = 15
    attention: int = 256


def positions(frames: int, units: int, like: Tensor) -> Tensor:
    """Return the sinusoidal encoding of absolute positions, (frames, units)."""
    at = torch.arange(frames, device=like.device, dtype=torch.float32)[:, None]
    pairs = torch.arange(0, units, 2, device=like.device, dtype=torch.float32)
    angles = at * torch.exp(pairs * -(math.log(10000.0) / units))
    return torch.stack((torch.sin(angles), torch.cos(angles)), dim=2).flatten(1).to(like.dtype)


class _Subsampling(nn.Module):
    """Halves the number of frames with two convolutions and a linear layer: (batch, mels, frames)
    to (batch, (frames - 1) // 2, units), and the mask of the result.
    """

    def __init__(self, mels: int, units: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, units, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(units, units, 3, stride=2),
            nn.ReLU(),
        )
        # Index 1 of the published layer is the position encoding, which has no weights.
        self.out = nn.Sequential(nn.Linear(units * ((mels - 1) // 2), units))

    def forward(self, features: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        x = self.conv[1](self.conv[0](features.transpose(1, 2)[:, None]))
        if mask is not None:
            x = torch.where(mask.transpose(1, 2)[:, None], x, 0.0)
        x = self.conv[3](self.conv[2](x))
        halving = self.conv[2]
        assert isinstance(halving, nn.Conv2d)
        return self.out(x.transpose(1, 2).flatten(2)), reduced(mask, halving, axis=0)


class _Attention(nn.Module):
    """Self-attention over (batch, frames, units) with the position biases u and v, but without the
    relative shift, as published.
    """

    def __init__(self, units: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.width = units // heads
        self.linear_q = nn.Linear(units, units)
        self.linear_k = nn.Linear(units, units)
        self.linear_v = nn.Linear(units, units)
        self.linear_out = nn.Linear(units, units)
        self.linear_pos = nn.Linear(units, units, bias=False)
        self.pos_bias_u = nn.Parameter(nn.init.xavier_uniform_(torch.empty(heads, self.width)))
        self.pos_bias_v = nn.Parameter(nn.init.xavier_uniform_(torch.empty(heads, self.width)))

    def forward(self, x: Tensor, table: Tensor, mask: Tensor | None) -> Tensor:
        batch, frames, units = x.shape

        def split(y: Tensor) -> Tensor:
            return y.view(y.shape[0], -1, self.heads, self.width).transpose(1, 2)

        q = split(self.linear_q(x))
        k = split(self.linear_k(x))
        v = split(self.linear_v(x))
        p = split(self.linear_pos(table)[None]).expand(batch, -1, -1, -1)
        # (q + u) k + (q + v) p is written as one product of twice the width. A fused kernel can
        # compute it, whose memory grows with the number of frames and not with its square.
        query = torch.cat((q + self.pos_bias_u[:, None], q + self.pos_bias_v[:, None]), dim=3)
        key = torch.cat((k, p), dim=3)
        value = F.pad(v, (0, self.width))  # fused kernels need equal widths
        allowed = None if mask is None else mask[:, None]
        mixed = F.scaled_dot_product_attention(
            query, key, value, allowed, scale=1 / math.sqrt(self.width)
        )
        return self.linear_out(
            mixed[..., : self.width].transpose(1, 2).reshape(batch, frames, units)
        )


class _FeedForward(nn.Module):
    def __init__(self, units: int, hidden: int) -> None:
        super().__init__()
        self.w_1 = nn.Linear(units, hidden)
        self.w_2 = nn.Linear(hidden, units)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        return self.w_2(self.dropout(F.silu(self.w_1(x))))


class _Convolution(nn.Module):
    def __init__(self, units: int, kernel: int) -> None:
        super().__init__()
        self.pointwise_conv1 = nn.Conv1d(units, 2 * units, 1)
        self.depthwise_conv = nn.Conv1d(units, units, kernel, padding=kernel // 2, groups=units)
        self.norm = nn.BatchNorm1d(units)
        self.pointwise_conv2 = nn.Conv1d(units, units, 1)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        y = F.glu(self.pointwise_conv1(x.transpose(1, 2)), dim=1)
        y = F.silu(self.norm(self.depthwise_conv(keep(y, mask))))
        return self.pointwise_conv2(y).transpose(1, 2)


class _Block(nn.Module):
    def __init__(self, s: MfaOptions) -> None:
        super().__init__()
        self.self_attn = _Attention(s.units, s.heads)
        self.feed_forward = _FeedForward(s.units, s.feedforward)
        self.feed_forward_macaron = _FeedForward(s.units, s.feedforward)
        self.conv_module = _Convolution(s.units, s.kernel)
        self.norm_ff = nn.LayerNorm(s.units, eps=NORM_EPS)
        self.norm_mha = nn.LayerNorm(s.units, eps=NORM_EPS)
        self.norm_ff_macaron = nn.LayerNorm(s.units, eps=NORM_EPS)
        self.norm_conv = nn.LayerNorm(s.units, eps=NORM_EPS)
        self.norm_final = nn.LayerNorm(s.units, eps=NORM_EPS)
        # Published checkpoints contain this layer, which is not used.
        self.concat_linear = nn.Linear(2 * s.units, s.units).requires_grad_(False)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor, table: Tensor, mask: Tensor | None) -> Tensor:
        x = x + 0.5 * self.dropout(self.feed_forward_macaron(self.norm_ff_macaron(x)))
        x = x + self.dropout(self.self_attn(self.norm_mha(x), table, mask))
        x = x + self.dropout(self.conv_module(self.norm_conv(x), mask))
        x = x + 0.5 * self.dropout(self.feed_forward(self.norm_ff(x)))
        return self.norm_final(x)


class _Conformer(nn.Module):
    def __init__(self, s: MfaOptions, mels: int) -> None:
        super().__init__()
        self.units = s.units
        self.embed = _Subsampling(mels, s.units)
        self.encoders = nn.ModuleList(_Block(s) for _ in range(s.blocks))
        self.after_norm = nn.LayerNorm(s.blocks * s.units, eps=NORM_EPS)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, features: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        x, mask = self.embed(features, mask)
        table = self.dropout(positions(x.shape[1], self.units, x))
        x = self.dropout(x * math.sqrt(self.units))
        outputs = []
        for block in self.encoders:
            x = block(x, table, mask)
            outputs.append(x)
        return self.after_norm(torch.cat(outputs, dim=2)), mask


class MfaConformer(Encoder):
    """MFA-Conformer."""

    name = "mfa-conformer"
    Options = MfaOptions
    min_frames = 5  # which leave two behind a convolution of stride two
    presets = {
        "published": {},
        "tiny": {"units": 64, "heads": 2, "blocks": 2, "feedforward": 128, "attention": 32},
        "test": {
            "units": 32,
            "heads": 2,
            "blocks": 2,
            "feedforward": 48,
            "attention": 16,
            "embedding": 24,
        },
    }
    frontend_attribute = "torchfbank"

    def __init__(self, options: MfaOptions, frontend: Frontend) -> None:
        super().__init__(options, frontend)
        s = options
        if s.units % s.heads or s.units % 2:
            raise SasvError(f"units ({s.units}) must be even and a multiple of heads ({s.heads})")
        if s.kernel % 2 == 0:
            raise SasvError(f"kernel ({s.kernel}) must be odd")
        self.conformer = _Conformer(s, frontend.feature_size)
        self.bn = nn.BatchNorm1d(2 * s.blocks * s.units)
        self.fc = nn.Linear(2 * s.blocks * s.units, s.embedding)
        # The fingerprint of a model depends on the order of its parts, and in the published order
        # the front-end comes here.
        self.torchfbank = self._modules.pop("torchfbank")
        self.attention = attention_network(s.blocks * s.units, s.attention)

    def network(self, features: Tensor, mask: Tensor | None) -> Tensor:
        x, mask = self.conformer(features, mask)
        return self.fc(self.bn(attentive_statistics(x.transpose(1, 2), self.attention, mask)))
