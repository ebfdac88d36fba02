"""CAM++ (Wang et al., Interspeech 2023): densely connected time-delay layers with context-aware
masks.

Layers and state-dict keys are those of 3D-Speaker, which WeSpeaker shares. The first time-delay
layer halves the number of frames.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sasv.core.errors import SasvError
from sasv.core.options import Range
from sasv.encoders.base import Encoder, EncoderOptions, ParameterGroup
from sasv.encoders.layers import SpoofAxis, precise
from sasv.encoders.memory_format import concatenated
from sasv.encoders.pooling import temporal_statistics
from sasv.frontends.base import Frontend
from sasv.frontends.masks import Segments, convolve, keep

SEGMENT = 100
"""Frames per segment (2 s); the mean over a segment is the local context of a mask."""
DILATIONS = (1, 2, 2)
"""Dilations of the convolutions in the three dense blocks."""


@dataclass(frozen=True)
class CampplusOptions(EncoderOptions):
    """Options of CAM++; the defaults are those of 3D-Speaker for 200,000 speakers (6,848,544
    parameters).

    Attributes:
        channels: channels of the two-dimensional convolutions.
        initial: channels of the first time-delay layer.
        growth: channels that each dense layer adds.
        bottleneck: channels inside a dense layer; an even number.
        layers: number of layers in each of the three dense blocks.
        variance_epsilon: added to the variance in the pooling before the square root; WeSpeaker
            uses 1e-7.
        spoof_axis: whether the embedding has one more dimension, which represents the evidence for
            a spoof (see SpoofAxis).
        inner_axis: whether that evidence is computed from the mean and the standard deviation over
            time of the input of the last dense block, and not from the embedding.
        axis_heads: number of linear spoof heads whose evidence is added, each for other kinds of
            spoofs.
        frozen_blocks: number of dense blocks that are not trained, counted from the first; the
            layers below them are not trained either.
    """

    channels: int = 32
    initial: int = 128
    growth: int = 32
    bottleneck: int = 128
    layers: tuple[int, ...] = (12, 24, 16)
    variance_epsilon: Annotated[float, Range(0, 1)] = 1e-12
    spoof_axis: bool = False
    inner_axis: bool = False
    axis_heads: Annotated[int, Range(1, 16)] = 1
    frozen_blocks: Annotated[int, Range(0, len(DILATIONS))] = 0

    def __post_init__(self) -> None:
        if self.bottleneck % 2:
            raise SasvError(f"bottleneck ({self.bottleneck}) must be even")
        if self.inner_axis and not self.spoof_axis:
            raise SasvError("inner_axis is a kind of spoof_axis; set spoof_axis as well")
        if self.axis_heads > 1 and not self.spoof_axis:
            raise SasvError("axis_heads are those of a spoof_axis; set spoof_axis as well")
        if self.inner_axis and self.frozen_blocks == len(DILATIONS):
            raise SasvError(
                "inner_axis reads the input of the last dense block, so frozen_blocks can be at "
                f"most {len(DILATIONS) - 1}"
            )
        if len(self.layers) != len(DILATIONS):
            raise SasvError(
                f"layers must have a number for each of {len(DILATIONS)} blocks, not "
                f"{len(self.layers)} numbers"
            )


class _ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut over (batch, channels, bands, frames); ``stride``
    applies to the bands.
    """

    norm_behind = {"conv1": "bn1", "conv2": "bn2"}

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, (stride, 1), 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride > 1:
            projection = nn.Conv2d(channels, channels, 1, (stride, 1), bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        y = F.relu(self.bn1(self.conv1(keep(x, mask))), inplace=True)
        y = self.bn2(self.conv2(keep(y, mask)))
        y += self.shortcut(x)
        return F.relu(y, inplace=True)


class _ConvolutionalFront(nn.Module):
    """Two-dimensional convolutions over bands and frames, which halve the number of bands three
    times: (batch, bands, frames) to (batch, channels * bands / 8, frames).
    """

    norm_behind = {"conv1": "bn1", "conv2": "bn2"}

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.layer1 = nn.ModuleList([_ResidualBlock(channels, 2), _ResidualBlock(channels, 1)])
        self.layer2 = nn.ModuleList([_ResidualBlock(channels, 2), _ResidualBlock(channels, 1)])
        self.conv2 = nn.Conv2d(channels, channels, 3, (2, 1), 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, features: Tensor, mask: Tensor | None) -> Tensor:
        x = F.relu(self.bn1(self.conv1(keep(features[:, None], mask))), inplace=True)
        for block in (*self.layer1, *self.layer2):
            x = block(x, mask)
        return F.relu(self.bn2(self.conv2(keep(x, mask))), inplace=True).flatten(1, 2)


def _norm(channels: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(batchnorm=nn.BatchNorm1d(channels), relu=nn.ReLU(inplace=True))
    )


class _ContextAwareMask(nn.Module):
    """Convolution over (batch, inputs, frames) whose output channels are gated by the means over
    all frames and over the segment.
    """

    def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
        super().__init__()
        self.linear_local = nn.Conv1d(
            inputs, outputs, 3, padding=dilation, dilation=dilation, bias=False
        )
        self.linear1 = nn.Conv1d(inputs, inputs // 2, 1)
        self.linear2 = nn.Conv1d(inputs // 2, outputs, 1)

    def forward(self, x: Tensor, mask: Tensor | None, segments: Segments) -> Tensor:
        x = keep(x, mask)
        whole, means = segments.means(x)
        gates = torch.sigmoid(self.linear2(F.relu(self.linear1(whole + means))))
        return self.linear_local(x) * segments.spread(gates)


class _DenseLayer(nn.Module):
    def __init__(self, inputs: int, growth: int, bottleneck: int, dilation: int) -> None:
        super().__init__()
        self.nonlinear1 = _norm(inputs)
        self.linear1 = nn.Conv1d(inputs, bottleneck, 1, bias=False)
        self.nonlinear2 = _norm(bottleneck)
        self.cam_layer = _ContextAwareMask(bottleneck, growth, dilation)

    def forward(self, x: Tensor, mask: Tensor | None, segments: Segments) -> Tensor:
        return self.cam_layer(self.nonlinear2(self.linear1(self.nonlinear1(x))), mask, segments)


class _DenseBlock(nn.ModuleDict):
    """Densely connected layers: the input of each is the input of the block and the outputs of all
    previous layers.
    """

    def __init__(
        self, layers: int, inputs: int, growth: int, bottleneck: int, dilation: int
    ) -> None:
        widths = [inputs + index * growth for index in range(layers)]
        parts = [_DenseLayer(width, growth, bottleneck, dilation) for width in widths]
        super().__init__({f"tdnnd{number}": part for number, part in enumerate(parts, 1)})
        self.widths = [*widths, inputs + layers * growth]

    def forward(self, x: Tensor, mask: Tensor | None, segments: Segments) -> Tensor:
        if x.device.type == "cpu" and torch.is_inference_mode_enabled():
            return self._in_place(x, mask, segments)
        for layer in self.values():
            x = concatenated([x, layer(x, mask, segments)])
        return x

    def _in_place(self, x: Tensor, mask: Tensor | None, segments: Segments) -> Tensor:
        """Compute the same in one tensor, so that each layer does not copy all those before it."""
        whole = x.new_empty(x.shape[0], self.widths[-1], x.shape[2])
        whole[:, : self.widths[0]] = x
        for layer, start, stop in zip(self.values(), self.widths, self.widths[1:]):
            whole[:, start:stop] = layer(whole[:, :start], mask, segments)
        return whole


class Campplus(Encoder):
    """CAM++."""

    name = "campplus"
    Options = CampplusOptions
    min_frames = 3  # which leave two behind a convolution of stride two
    presets = {
        "published": {},
        "tiny": {
            "channels": 16,
            "initial": 64,
            "growth": 16,
            "bottleneck": 64,
            "layers": (4, 6, 4),
        },
        "test": {
            "channels": 4,
            "initial": 16,
            "growth": 8,
            "bottleneck": 16,
            "layers": (2, 2, 2),
            "embedding": 24,
        },
    }
    default_frontend = "kaldi"

    def __init__(self, options: CampplusOptions, frontend: Frontend) -> None:
        super().__init__(options, frontend)
        o = options
        bands = frontend.feature_size
        for _ in range(3):
            bands = (bands + 1) // 2
        self.head = _ConvolutionalFront(o.channels)
        tdnn = nn.Conv1d(o.channels * bands, o.initial, 5, 2, 2, bias=False)
        parts: dict[str, nn.Module] = {
            "tdnn": nn.Sequential(OrderedDict(linear=tdnn, nonlinear=_norm(o.initial))),
        }
        width = o.initial
        for number, (layers, dilation) in enumerate(zip(o.layers, DILATIONS), 1):
            block_inputs = width
            parts[f"block{number}"] = _DenseBlock(layers, width, o.growth, o.bottleneck, dilation)
            width += layers * o.growth
            linear = nn.Conv1d(width, width // 2, 1, bias=False)
            parts[f"transit{number}"] = nn.Sequential(
                OrderedDict(nonlinear=_norm(width), linear=linear)
            )
            width //= 2
        parts["out_nonlinear"] = _norm(width)
        dense = nn.Conv1d(2 * width, o.embedding, 1, bias=False)
        norm = nn.Sequential(OrderedDict(batchnorm=nn.BatchNorm1d(o.embedding, affine=False)))
        parts["dense"] = nn.Sequential(OrderedDict(linear=dense, nonlinear=norm))
        self.xvector = nn.ModuleDict(parts)
        self.spoof_axis: SpoofAxis | None = None
        if o.spoof_axis:
            inputs = 2 * block_inputs if o.inner_axis else o.embedding
            self.spoof_axis = SpoofAxis(inputs, o.axis_heads)
        for module in self.modules():
            if isinstance(module, nn.Conv1d):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.frozen_parts():
            module.requires_grad_(False)

    def frozen_parts(self) -> list[nn.Module]:
        """Return the modules that are not trained."""
        count = self.options.frozen_blocks
        if not count:
            return []
        parts = self.xvector
        blocks = [
            parts[f"{name}{number}"]
            for number in range(1, count + 1)
            for name in ("block", "transit")
        ]
        return [self.head, parts["tdnn"], *blocks]

    def train(self, mode: bool = True) -> "Campplus":
        """Set training mode; what is frozen stays in evaluation mode, with its statistics."""
        super().train(mode)
        for module in self.frozen_parts():
            module.eval()
        return self

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return what is trained, and what is frozen."""
        frozen = [x for module in self.frozen_parts() for x in module.parameters()]
        inside = {id(parameter) for parameter in frozen}
        trained = [parameter for parameter in self.parameters() if id(parameter) not in inside]
        groups = [ParameterGroup("encoder", trained)]
        if frozen:
            groups.append(ParameterGroup("frozen blocks", frozen, 0.0))
        return groups

    @classmethod
    def retrained(cls, saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Return which blocks a training freezes."""
        return {name: value for name, value in wanted.items() if name == "frozen_blocks"}

    @property
    def dimension(self) -> int:
        """Dimension of the embeddings."""
        return self.options.embedding + int(self.options.spoof_axis)

    def network(self, features: Tensor, mask: Tensor | None) -> Tensor:
        return self.above(*self.below(features, mask))

    def below(self, features: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return what the first dense block that is trained is fed.

        Args:
            features: (batch, feature_size, frames).
            mask: of these, see ``network``.

        Returns:
            (batch, channels, half the frames), and its mask.
        """
        linear, norm = self.xvector["tdnn"].children()
        assert isinstance(linear, nn.Conv1d)
        x, mask = convolve(linear, self.head(features, mask), mask)
        return self._blocks(norm(x), mask, range(1, self.options.frozen_blocks + 1)), mask

    def above(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return the embeddings (batch, dimension) of what ``below`` returned."""
        first = self.options.frozen_blocks + 1
        inner = None
        if self.options.inner_axis:
            x = self._last_inputs(x, mask)
            inner = self._statistics(precise(x, self.training), mask)
            first = len(DILATIONS)
        pooled = self.last_statistics(x, mask, first)
        embeddings = self.xvector["dense"](pooled[:, :, None]).squeeze(2)
        return embeddings if self.spoof_axis is None else self.spoof_axis(embeddings, inner)

    def last_statistics(
        self, x: Tensor, mask: Tensor | None, first: int = len(DILATIONS)
    ) -> Tensor:
        """Return what the last linear layer is fed, a mean and standard deviation over time,
        (batch, 2 * channels).

        Args:
            x: what the dense block of number ``first`` is fed, (batch, channels, frames).
            mask: of these, see ``network``.
            first: 3 is the last block, as for what ``above_but_last`` returns.
        """
        x = self._blocks(x, mask, range(first, len(DILATIONS) + 1))
        return self._statistics(self.xvector["out_nonlinear"](x), mask)

    def above_but_last(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return what the last dense block is fed, (batch, channels, frames), and its mean and
        standard deviation over time, (batch, 2 * channels), for what ``below`` returned.
        """
        x = self._last_inputs(x, mask)
        return x, self._statistics(x, mask)

    def _last_inputs(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return self._blocks(x, mask, range(self.options.frozen_blocks + 1, len(DILATIONS)))

    def _statistics(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return temporal_statistics(x, mask, self.options.variance_epsilon)

    def _blocks(self, x: Tensor, mask: Tensor | None, numbers: range) -> Tensor:
        """Pass through the dense blocks of these numbers."""
        if numbers:
            segments = Segments.of(x, mask, SEGMENT)
            for number in numbers:
                x = self.xvector[f"transit{number}"](
                    self.xvector[f"block{number}"](x, mask, segments)
                )
        return x
