"""ReDimNet (Yakovlev et al., Interspeech 2024): alternating two-dimensional and one-dimensional
blocks of the same size.

Every stage outputs a map of the same size, which is (channels, bands, frames) for its
two-dimensional blocks and (bands times channels, frames) for its one-dimensional block. The input
of each stage is a learnt average of the outputs of all previous stages. The number of frames is
never reduced. The state-dict keys are those of the authors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sasv.core.errors import SasvError
from sasv.core.options import PositiveFloat
from sasv.encoders.base import Encoder, EncoderOptions
from sasv.encoders.pooling import TanhAttentiveStatistics
from sasv.frontends.base import Frontend
from sasv.frontends.masks import keep, masked_mean

EPSILON = 1e-6
HEADS = 4
ATTENTION_CHANNELS = 128
POSITION_KERNEL = 59
CONVOLUTION_KERNELS = (7, 19, 31, 59)
"""Kernel sizes of the four convolutions before the attention in a block ``conv+att``."""
PARALLEL_KERNELS = (7, 15, 31)
"""Kernel sizes of the parallel convolutions in a block ``conv``, of which there are four."""


@dataclass(frozen=True)
class RedimnetOptions(EncoderOptions):
    """Options of ReDimNet; the defaults are those of the size M of its authors (4,234,193
    parameters).

    Attributes:
        channels: channels of the first stage.
        block_1d: type of the one-dimensional blocks.
        block_2d: type of the two-dimensional blocks.
        strides: for each stage, the factor by which the bands are divided and the channels
            multiplied.
        blocks: for each stage, the number of two-dimensional blocks.
        expansions: for each stage, the factor by which its two-dimensional blocks widen the
            channels.
        reductions: for each stage, the factor by which the channels are divided inside its
            one-dimensional block; None for a stage without such a block.
        group_width: channels per group of the convolutions; None for convolutions without groups.
        output_channels: channels that are pooled; None pools all of them, without a further
            convolution.
        context: whether the attention of the pooling also sees the mean and standard deviation over
            time.
        embedding_norm: whether the network ends with a batch norm.
    """

    channels: int = 16
    block_1d: Literal["fc", "conv", "att", "conv+att"] = "att"
    block_2d: Literal[
        "convnext_like", "convnext_like_relu", "basic_resnet", "basic_resnet_fwse"
    ] = "convnext_like"
    strides: tuple[int, ...] = (1, 2, 1, 2, 1, 2)
    blocks: tuple[int, ...] = (2, 2, 3, 4, 4, 4)
    expansions: tuple[PositiveFloat, ...] = (1, 1, 1, 1, 1, 1)
    reductions: tuple[int | None, ...] = (12, 12, 12, 8, 8, 4)
    group_width: int | None = 4
    output_channels: int | None = None
    context: bool = False
    embedding_norm: bool = False

    def __post_init__(self) -> None:
        counts = {len(self.strides), len(self.blocks), len(self.expansions), len(self.reductions)}
        if len(counts) > 1 or not self.strides:
            raise SasvError(
                "strides, blocks, expansions, and reductions must have a value for each stage"
            )


class _ChannelNorm(nn.Module):
    """Layer norm over the channels of (batch, channels, ...)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        normed = F.layer_norm(x.movedim(1, -1), self.weight.shape, self.weight, self.bias, EPSILON)
        return normed.movedim(-1, 1)


class _Aggregation(nn.Module):
    """Average of maps (batch, features, frames) with learnt weights for each map and feature."""

    def __init__(self, maps: int, features: int) -> None:
        super().__init__()
        # The average of a single map is the map itself. Published files contain its weight, which
        # is not learnt.
        shape = (1, maps, features if maps > 1 else 1, 1)
        self.w = nn.Parameter(torch.zeros(shape), requires_grad=maps > 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        weights = torch.softmax(self.w, dim=1)
        total = maps[0] * weights[:, 0]
        for index, x in enumerate(maps[1:], 1):
            total = total + x * weights[:, index]
        return total


class _ConvNext(nn.Module):
    """Parallel grouped convolutions, batch norm, activation, a convolution of width one, and a skip
    connection.
    """

    def __init__(
        self,
        channels: int,
        kernels: Sequence[int],
        axes: int,
        groups: int,
        activation: str = "gelu",
    ) -> None:
        super().__init__()
        convolution: type[nn.Conv1d | nn.Conv2d] = nn.Conv1d if axes == 1 else nn.Conv2d
        norm: type[nn.BatchNorm1d | nn.BatchNorm2d] = (
            nn.BatchNorm1d if axes == 1 else nn.BatchNorm2d
        )
        inside = channels * len(kernels)
        self.dwconvs = nn.ModuleList(
            convolution(channels, channels, kernel, padding=kernel // 2, groups=groups)
            for kernel in kernels
        )
        self.norm = norm(inside)
        self.act: nn.Module = nn.ReLU() if activation == "relu" else nn.GELU()
        self.pwconv1 = convolution(inside, channels, 1)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        seen = keep(x, mask)
        y = torch.cat([conv(seen) for conv in self.dwconvs], dim=1)
        return x + self.pwconv1(self.act(self.norm(y)))


class _BandExcitation(nn.Module):
    """Squeeze-excitation of the bands of (batch, channels, bands, frames)."""

    def __init__(self, bands: int, inside: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(bands, inside)
        self.exitation = nn.Linear(inside, bands)  # spelt as in published files

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        means = masked_mean(x, mask, (1, -1))[:, 0, :, 0]
        gates = torch.sigmoid(self.exitation(F.relu(self.squeeze(means))))
        return x * gates[:, None, :, None]


class _Residual(nn.Module):
    """Two 3x3 convolutions, each followed by one of width one if they are grouped, and a skip
    connection, over (batch, channels, bands, frames).
    """

    def __init__(
        self, channels: int, bands: int, groups: int, pointwise: bool, excite: bool
    ) -> None:
        super().__init__()

        def wide() -> nn.Conv2d:
            return nn.Conv2d(channels, channels, 3, padding=1, bias=False, groups=groups)

        def narrow() -> nn.Module:
            return nn.Conv2d(channels, channels, 1) if pointwise else nn.Identity()

        self.conv1 = wide()
        self.conv1pw = narrow()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = wide()
        self.conv2pw = narrow()
        self.bn2 = nn.BatchNorm2d(channels)
        if excite:
            self.se = _BandExcitation(bands, min(64, max(channels, 32)))
        self.excite = excite

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        y = self.bn1(F.relu(self.conv1pw(self.conv1(keep(x, mask)))))
        y = self.bn2(self.conv2pw(self.conv2(keep(y, mask))))
        if self.excite:
            y = self.se(y, mask)
        return F.relu(x + y)


class _Block2d(nn.Module):
    """A two-dimensional block of one of four types, which have their published names."""

    def __init__(self, kind: str, channels: int, bands: int, group_width: int | None) -> None:
        super().__init__()
        groups = groups_of(channels, group_width)
        if kind.startswith("convnext_like"):
            activation = "relu" if kind.endswith("relu") else "gelu"
            self.conv_block: nn.Module = _ConvNext(channels, (3,), 2, groups, activation)
        else:
            pointwise = group_width is not None
            self.conv_block = _Residual(channels, bands, groups, pointwise, kind.endswith("fwse"))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return self.conv_block(x, mask)


def groups_of(channels: int, group_width: int | None) -> int:
    """Return the number of groups of a convolution.

    Raises:
        SasvError: the number of channels is not a multiple of ``group_width``.
    """
    if group_width is None:
        return 1
    if channels % group_width:
        raise SasvError(
            f"{channels} channels are not a multiple of group_width ({group_width}); choose another"
        )
    return channels // group_width


class _PositionalConvolution(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(
            channels, channels, POSITION_KERNEL, padding=POSITION_KERNEL // 2, groups=channels
        )
        self.norm = _ChannelNorm(channels)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return x + self.norm(self.conv(keep(x, mask)))


class _Attention(nn.Module):
    def __init__(self, units: int) -> None:
        super().__init__()
        self.k_proj = nn.Linear(units, units)
        self.v_proj = nn.Linear(units, units)
        self.q_proj = nn.Linear(units, units)
        self.out_proj = nn.Linear(units, units)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = (
            layer(x).unflatten(2, (HEADS, -1)).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        allowed = None if mask is None else mask[:, None]
        mixed = F.scaled_dot_product_attention(q, k, v, allowed)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class _FeedForward(nn.Module):
    def __init__(self, units: int, hidden: int) -> None:
        super().__init__()
        self.intermediate_dense = nn.Linear(units, hidden)
        self.output_dense = nn.Linear(hidden, units)

    def forward(self, x: Tensor) -> Tensor:
        return self.output_dense(F.gelu(self.intermediate_dense(x), approximate="tanh"))


class _Transformer(nn.Module):
    """A layer of a transformer encoder over (batch, units, frames)."""

    def __init__(self, units: int, hidden: int) -> None:
        super().__init__()
        self.attention = _Attention(units)
        self.layer_norm = nn.LayerNorm(units, eps=EPSILON)
        self.feed_forward = _FeedForward(units, hidden)
        self.final_layer_norm = nn.LayerNorm(units, eps=EPSILON)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        y = x.transpose(1, 2)
        y = self.layer_norm(y + self.attention(y, mask))
        y = self.final_layer_norm(y + self.feed_forward(y))
        return y.transpose(1, 2)


class _Block1d(nn.Module):
    """A one-dimensional block of one of four types between two convolutions of width one, and a
    skip connection, over (batch, features, frames).
    """

    def __init__(self, kind: str, features: int, units: int) -> None:
        super().__init__()
        if kind.endswith("att") and units % HEADS:
            raise SasvError(
                f"a stage has {units} channels in its attention, which is not a multiple of its "
                f"{HEADS} heads; change reductions"
            )
        self.red_dim_conv = nn.Sequential(nn.Conv1d(features, units, 1), _ChannelNorm(units))
        parts: list[nn.Module]
        if kind == "fc":
            parts = [
                nn.Conv1d(units, 2 * units, 1),
                _ChannelNorm(2 * units),
                nn.GELU(),
                nn.Conv1d(2 * units, units, 1),
            ]
        elif kind == "conv":
            parts = [_ConvNext(units, PARALLEL_KERNELS, 1, units) for _ in range(4)]
        elif kind == "att":
            parts = [_PositionalConvolution(units), _Transformer(units, 2 * units)]
        else:
            parts = [_ConvNext(units, (kernel,), 1, units) for kernel in CONVOLUTION_KERNELS]
            parts.append(_Transformer(units, units))
        self.masked = kind != "fc"
        self.tcm = nn.ModuleList(parts)
        self.exp_dim_conv = nn.Conv1d(units, features, 1)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        y = self.red_dim_conv(x)
        for part in self.tcm:
            y = part(y, mask) if self.masked else part(y)
        return x + self.exp_dim_conv(y)


class _Stage(nn.Module):
    """Aggregation, a strided convolution, two-dimensional blocks, and a one-dimensional block."""

    def __init__(self, o: RedimnetOptions, stage: int, channels: int, bands: int) -> None:
        super().__init__()
        stride = o.strides[stage]
        expansion = o.expansions[stage]
        features = channels * bands
        self.channels = channels
        self.bands = bands
        outputs = stride * channels
        inside = int(outputs * expansion)
        # The parts have numbers as names in published files, and parts without weights count too.
        self.add_module("0", _Aggregation(stage + 1, features))
        self.add_module("2", nn.Conv2d(channels, inside, (stride, 1), (stride, 1)))
        number = 3
        self.middle: list[str] = []
        for _ in range(o.blocks[stage]):
            self.add_module(
                str(number), _Block2d(o.block_2d, inside, bands // stride, o.group_width)
            )
            self.middle.append(str(number))
            number += 1
        self.squeeze = ""
        if expansion != 1:
            groups = 1 if o.group_width is None else max(outputs // o.group_width, 1)
            self.squeeze = str(number)
            self.add_module(self.squeeze, _squeeze(inside, outputs, groups))
            number += 1
        self.context = ""
        reduction = o.reductions[stage]
        if reduction is not None:
            self.context = str(number + 1)
            self.add_module(
                self.context, _Block1d(o.block_1d, features, max(features // reduction, 1))
            )

    def forward(self, maps: Sequence[Tensor], mask: Tensor | None) -> Tensor:
        parts = self._modules
        x = self.get_submodule("0")(maps)
        x = x.unflatten(1, (self.bands, self.channels)).transpose(1, 2)
        x = self.get_submodule("2")(x)
        for name in self.middle:
            x = self.get_submodule(name)(x, mask)
        if self.squeeze:
            x = self.get_submodule(self.squeeze)(keep(x, mask))
        x = x.transpose(1, 2).flatten(1, 2)
        return self.get_submodule(self.context)(x, mask) if self.context in parts else x


def _squeeze(inputs: int, outputs: int, groups: int) -> nn.Sequential:
    if inputs % groups or outputs % groups:
        raise SasvError(
            f"a stage cannot map {inputs} channels to {outputs} in {groups} groups; change "
            "expansions"
        )
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups),
        nn.BatchNorm2d(outputs, eps=EPSILON),
        nn.GELU(),
        nn.Conv2d(outputs, outputs, 1),
    )


class _Backbone(nn.Module):
    def __init__(self, o: RedimnetOptions, bands: int) -> None:
        super().__init__()
        channels = o.channels
        features = channels * bands
        self.stem = nn.Sequential(nn.Conv2d(1, channels, 3, padding=1), _ChannelNorm(channels))
        self.stages: list[str] = []
        for stage, stride in enumerate(o.strides):
            if bands % stride:
                raise SasvError(
                    f"stage {stage + 1} cannot divide {bands} bands by {stride}; change strides "
                    "or mels"
                )
            self.stages.append(f"stage{stage}")
            self.add_module(self.stages[-1], _Stage(o, stage, channels, bands))
            channels *= stride
            bands //= stride
        self.fin_wght1d = _Aggregation(len(o.strides) + 1, features)
        self.width = features if o.output_channels is None else o.output_channels
        self.mfa: nn.Module = nn.Identity()
        if o.output_channels is not None:
            self.mfa = nn.Sequential(nn.Conv1d(features, self.width, 1), nn.BatchNorm1d(self.width))

    def forward(self, features: Tensor, mask: Tensor | None) -> Tensor:
        x = self.stem(keep(features[:, None], mask))
        maps = [x.transpose(1, 2).flatten(1, 2)]
        for name in self.stages:
            maps.append(self.get_submodule(name)(maps, mask))
        return self.mfa(self.fin_wght1d(maps))


class Redimnet(Encoder):
    """ReDimNet."""

    name = "redimnet"
    Options = RedimnetOptions
    presets = {
        "published": {},
        "tiny": {
            "channels": 8,
            "strides": (1, 2, 2),
            "blocks": (1, 1, 2),
            "expansions": (1, 1, 1),
            "reductions": (12, 12, 8),
        },
        "test": {
            "channels": 4,
            "strides": (1, 2),
            "blocks": (1, 1),
            "expansions": (1, 1),
            "reductions": (24, 24),
            "embedding": 24,
        },
    }
    default_frontend_options = {"mels": 72}

    def __init__(self, options: RedimnetOptions, frontend: Frontend) -> None:
        super().__init__(options, frontend)
        for part in frontend.modules():
            # The tensors of the log-mel front-end can be computed from its options; only published
            # checkpoints store them.
            part._non_persistent_buffers_set.update(part._buffers)
        self.backbone = _Backbone(options, frontend.feature_size)
        width = self.backbone.width
        self.pool = TanhAttentiveStatistics(width, ATTENTION_CHANNELS, options.context)
        self.bn = nn.BatchNorm1d(2 * width)
        self.linear = nn.Linear(2 * width, options.embedding)
        self.bn2 = nn.BatchNorm1d(options.embedding) if options.embedding_norm else nn.Identity()

    def network(self, features: Tensor, mask: Tensor | None) -> Tensor:
        x = self.backbone(features, mask)
        return self.bn2(self.linear(self.bn(self.pool(x, mask))))
