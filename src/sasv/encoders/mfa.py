"""MFA-Conformer (Zhang et al., Interspeech 2022): the outputs of all Conformer blocks, concatenated and pooled."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sasv.core.errors import SasvError
from sasv.encoders import base
from sasv.encoders.layers import attention_network, attentive_statistics
from sasv.frontends.masks import frame_mask, keep

NORM_EPS = 1e-12
DROPOUT = 0.1


@dataclass(frozen=True)
class MfaSizes(base.EncoderSizes):
    """Sizes of MFA-Conformer; the defaults are published (21,924,288 parameters)."""

    units: int = 256
    heads: int = 4
    blocks: int = 6
    feedforward: int = 2048
    kernel: int = 15
    attention: int = 256


def positions(frames: int, units: int, like: Tensor) -> Tensor:
    """Sinusoidal table of absolute positions, (frames, units)."""
    at = torch.arange(frames, device=like.device, dtype=torch.float32)[:, None]
    rates = torch.exp(torch.arange(0, units, 2, device=like.device, dtype=torch.float32) * -(math.log(10000.0) / units))
    table = torch.zeros(frames, units, device=like.device)
    table[:, 0::2] = torch.sin(at * rates)
    table[:, 1::2] = torch.cos(at * rates)
    return table.to(like.dtype)


class _Subsampling(nn.Module):
    """Halve the frames: two convolutions and a linear layer."""

    def __init__(self, mels: int, units: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, units, 3, padding=1), nn.ReLU(), nn.Conv2d(units, units, 3, stride=2), nn.ReLU()
        )
        # Index 1 of the published layer is its position table, which has no weights.
        self.out = nn.Sequential(nn.Linear(units * ((mels - 1) // 2), units))

    def forward(self, features: Tensor, mask: Tensor | None) -> Tensor:
        x = self.conv[1](self.conv[0](features.transpose(1, 2)[:, None]))
        if mask is not None:
            x = x * mask.transpose(1, 2)[:, None]
        x = self.conv[3](self.conv[2](x))
        return self.out(x.transpose(1, 2).flatten(2))

    @staticmethod
    def frames(frames: Tensor) -> Tensor:
        """Frames left of so many."""
        return (frames - 3) // 2 + 1


class _Attention(nn.Module):
    """Self-attention with position biases u and v, without the relative shift (as published)."""

    def __init__(self, units: int, heads: int) -> None:
        super().__init__()
        self.heads, self.width = heads, units // heads
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

        q, k, v = split(self.linear_q(x)), split(self.linear_k(x)), split(self.linear_v(x))
        p = split(self.linear_pos(table)[None]).expand(batch, -1, -1, -1)
        # (q + u) k + (q + v) p is one product of twice the width, so the fused kernel applies and its memory
        # grows with the frames and not with their square.
        query = torch.cat((q + self.pos_bias_u[:, None], q + self.pos_bias_v[:, None]), dim=3)
        key = torch.cat((k, p), dim=3)
        value = F.pad(v, (0, self.width))  # fused kernels want equal widths
        allowed = None if mask is None else (mask > 0)[:, None]
        mixed = F.scaled_dot_product_attention(query, key, value, allowed, scale=1 / math.sqrt(self.width))
        return self.linear_out(mixed[..., : self.width].transpose(1, 2).reshape(batch, frames, units))


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
    def __init__(self, s: MfaSizes) -> None:
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
        # Published checkpoints carry this layer; nothing uses it.
        self.concat_linear = nn.Linear(2 * s.units, s.units).requires_grad_(False)  # published, and not used
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor, table: Tensor, mask: Tensor | None) -> Tensor:
        x = x + 0.5 * self.dropout(self.feed_forward_macaron(self.norm_ff_macaron(x)))
        x = x + self.dropout(self.self_attn(self.norm_mha(x), table, mask))
        x = x + self.dropout(self.conv_module(self.norm_conv(x), mask))
        x = x + 0.5 * self.dropout(self.feed_forward(self.norm_ff(x)))
        return self.norm_final(x)


class _Conformer(nn.Module):
    def __init__(self, s: MfaSizes) -> None:
        super().__init__()
        self.units = s.units
        self.embed = _Subsampling(s.mels, s.units)
        self.encoders = nn.ModuleList(_Block(s) for _ in range(s.blocks))
        self.after_norm = nn.LayerNorm(s.blocks * s.units, eps=NORM_EPS)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, features: Tensor, mask: Tensor | None, frames: Tensor | None) -> tuple[Tensor, Tensor | None]:
        x = self.embed(features, mask)
        mask = None if frames is None else frame_mask(self.embed.frames(frames), x.shape[1], x.dtype)
        table = self.dropout(positions(x.shape[1], self.units, x))
        x = self.dropout(x * math.sqrt(self.units))
        outputs = []
        for block in self.encoders:
            x = block(x, table, mask)
            outputs.append(x)
        return self.after_norm(torch.cat(outputs, dim=2)), mask


class MfaConformer(base.Encoder):
    """MFA-Conformer."""

    Sizes = MfaSizes

    def __init__(self, sizes: MfaSizes | None = None) -> None:
        super().__init__(sizes)
        s = self.sizes
        if s.units % s.heads or s.units % 2:
            raise SasvError(f"units ({s.units}) must be even and a multiple of heads ({s.heads})")
        if s.kernel % 2 == 0:
            raise SasvError(f"kernel ({s.kernel}) must be odd")
        self.conformer = _Conformer(s)
        self.bn = nn.BatchNorm1d(2 * s.blocks * s.units)
        self.fc = nn.Linear(2 * s.blocks * s.units, s.embedding)
        self.add_frontend()
        self.attention = attention_network(s.blocks * s.units, s.attention)

    def network(self, features: Tensor, mask: Tensor | None, frames: Tensor | None) -> Tensor:
        x, mask = self.conformer(features, mask, frames)
        return self.fc(self.bn(attentive_statistics(x.transpose(1, 2), self.attention, mask)))

    @classmethod
    def recognises(cls, names: Collection[str]) -> bool:
        return "conformer.after_norm.weight" in names

    @classmethod
    def sizes_of(cls, shapes: Mapping[str, tuple[int, ...]]) -> MfaSizes:
        block = "conformer.encoders.0."
        return MfaSizes(
            mels=shapes["torchfbank.1.mel_scale.fb"][1],
            embedding=shapes["fc.weight"][0],
            units=shapes["conformer.embed.conv.0.weight"][0],
            heads=shapes[block + "self_attn.pos_bias_u"][0],
            blocks=sum(key.endswith(".self_attn.pos_bias_u") for key in shapes),
            feedforward=shapes[block + "feed_forward.w_1.weight"][0],
            kernel=shapes[block + "conv_module.depthwise_conv.weight"][2],
            attention=shapes["attention.0.weight"][0],
        )
