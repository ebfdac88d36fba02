"""Fits a CAM++ with fewer dense layers to another one.

Each of its layers stands for neighbouring layers of the teacher: it keeps those of their channels
that matter most, and is fitted to them by ridge regression, frame by frame. The regressions see
what the layers of the student compute, so that each makes up for what the layers before it have
lost, and for the rounding of their weights to eight bits.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sasv.checkpoints import dequantised, quantised
from sasv.encoders.campplus import SEGMENT, Campplus
from sasv.frontends.masks import Segments

RIDGE = 3e-4
"""Strength of the regressions on frames, relative to the mean square of their inputs."""
GATE_RIDGE = 1e-3
LAST_GATE_RIDGE = 1e-2
"""The same of the two layers behind a gate, which are regressions on segments."""
DAMPING = 1e-4
"""Added to the diagonal of a Gram matrix before it is inverted, relative to its mean."""
AT_ONCE = 8
"""One in this number of the inputs that are to be removed is removed at a time."""
EVERY = 5
"""The regressions see each of this number of frames."""
LAYER_SHARE = 0.5
"""Weight of all dense layers in the importance of a channel; that of the layer behind the block is
1."""


class Taught(NamedTuple):
    """What a dense layer of the teacher computes.

    Attributes:
        inside: (frames, bottleneck) outputs of its first linear layer, as by ``frames_of``.
        hidden: (crops, bottleneck, frames) inputs of its convolution.
        local: (crops, growth, frames) outputs of its convolution.
        gate_inputs: (segments, bottleneck / 2) what the ReLU before its gates is fed.
        gates: (segments, growth) what the sigmoid of its gates is fed.
    """

    inside: Tensor
    hidden: Tensor
    local: Tensor
    gate_inputs: Tensor
    gates: Tensor


class State(NamedTuple):
    """What both networks have computed up to some layer.

    Attributes:
        theirs: (crops, channels, frames) of the teacher.
        ours: (crops, fewer channels, frames) of the student.
        channels: the channels of the teacher that those of the student stand for.
    """

    theirs: Tensor
    ours: Tensor
    channels: list[int]


@torch.no_grad()
def fit_layers(student: Campplus, teacher: Campplus, inputs: Tensor) -> None:
    """Fit the second and third dense block of the student and the layers behind them. The layers
    below have to be those of the teacher. Both networks are in evaluation mode.

    Args:
        student: has any number of layers in these blocks.
        teacher: has at least as many.
        inputs: (crops, channels, frames) what the second dense block is fed.
    """
    state = State(inputs, inputs, list(range(inputs.shape[1])))
    for number in (2, 3):
        state = fit_block(student, teacher, number, state)
        state = fit_transit(student, teacher, number, state)
    ours = student.xvector["out_nonlinear"]
    copy_norm(teacher.xvector["out_nonlinear"], ours, state.channels)


def fit_block(student: Campplus, teacher: Campplus, number: int, state: State) -> State:
    """Fit the dense block with this number, and return the outputs of both."""
    segments = Segments.of(state.theirs, None, SEGMENT)
    layers = list(teacher.xvector[f"block{number}"].values())
    theirs = state.theirs
    taught = []
    for layer in layers:
        found = teach(layer, theirs, segments)
        taught.append(found)
        gates = torch.sigmoid(unsegmented(found.gates, len(theirs)))
        theirs = torch.cat((theirs, found.local * segments.spread(gates)), dim=1)
    consumers = [(layer.nonlinear1, layer.linear1, LAYER_SHARE / len(layers)) for layer in layers]
    transit = teacher.xvector[f"transit{number}"]
    consumers.append((transit.nonlinear, transit.linear, 1.0))
    important = importance(consumers, theirs)
    ours = state.ours
    channels = state.channels
    fitted = list(student.xvector[f"block{number}"].values())
    for index, layer in enumerate(fitted):
        start = round(index * len(layers) / len(fitted))
        stop = round((index + 1) * len(layers) / len(fitted))
        growth = layer.cam_layer.linear_local.out_channels
        first = state.theirs.shape[1] + start * growth
        order = important[first : first + (stop - start) * growth].argsort(descending=True)
        places = order[:growth].sort().values
        copy_norm(layers[stop - 1].nonlinear1, layer.nonlinear1, channels)
        merge(layer, layers[start:stop], taught[start:stop], places, ours, segments)
        ours = torch.cat((ours, layer(ours, None, segments)), dim=1)
        channels = channels + (first + places).tolist()
    return State(theirs, ours, channels)


def teach(layer: nn.Module, x: Tensor, segments: Segments) -> Taught:
    """Return what a dense layer computes of ``x``, (crops, channels, frames)."""
    mask = layer.cam_layer
    inside = layer.linear1(layer.nonlinear1(x.clone()))
    hidden = layer.nonlinear2(inside.clone())
    gate_inputs = mask.linear1(context(hidden, segments))
    gates = mask.linear2(F.relu(gate_inputs))
    return Taught(
        frames_of(inside), hidden, mask.linear_local(hidden), rows(gate_inputs), rows(gates)
    )


def merge(
    layer: nn.Module,
    group: list[nn.Module],
    taught: list[Taught],
    places: Tensor,
    inputs: Tensor,
    segments: Segments,
) -> None:
    """Fit a dense layer to those of a group.

    Args:
        layer: is fitted.
        group: neighbouring layers of the teacher.
        taught: what they compute.
        places: the outputs that it has, among those of the group.
        inputs: (crops, channels, frames) what it is fed.
        segments: of these.
    """
    masks = [one.cam_layer for one in group]
    wanted = torch.cat([one.local for one in taught], dim=1)[:, places]
    hidden = torch.cat([one.hidden for one in taught], dim=1)
    dilation = layer.cam_layer.linear_local.dilation[0]
    seen = taps(hidden, dilation, 2 * EVERY)
    kernels = torch.block_diag(*[one.linear_local.weight.flatten(1) for one in masks])[places]
    kernels = kernels / frames_of(wanted).std(0)[:, None]
    keep = kept(seen, kernels, layer.linear1.out_channels, 3, DAMPING)
    inside = torch.cat([one.inside for one in taught], dim=1)[:, keep]
    weight, bias = ridge(frames_of(layer.nonlinear1(inputs.clone())), inside, RIDGE)
    layer.linear1.weight[:, :, 0] = weight
    round_weights(layer.linear1)
    for name, value in joined_norms([one.nonlinear2 for one in group]).items():
        getattr(layer.nonlinear2.batchnorm, name).copy_(value[keep])
    layer.nonlinear2.batchnorm.running_mean.sub_(bias)

    mask = layer.cam_layer
    hidden = layer.nonlinear2(layer.linear1(layer.nonlinear1(inputs.clone())))
    # The convolution has no bias. Its inputs are not negative, so that it does well without one.
    weight = ridge_without_bias(taps(hidden, dilation, EVERY), frames_of(wanted), RIDGE)
    mask.linear_local.weight.copy_(weight.unflatten(1, (-1, 3)))
    round_weights(mask.linear_local)

    gate_inputs = torch.cat([one.gate_inputs for one in taught], dim=1)
    weights = torch.block_diag(*[one.linear2.weight[:, :, 0] for one in masks])[places]
    keep = kept(F.relu(gate_inputs), weights, mask.linear1.out_channels, 1, GATE_RIDGE)
    summary = context(hidden, segments)
    weight, bias = ridge(rows(summary), gate_inputs[:, keep], GATE_RIDGE)
    mask.linear1.weight[:, :, 0] = weight
    mask.linear1.bias.copy_(bias)
    round_weights(mask.linear1)
    gates = torch.cat([one.gates for one in taught], dim=1)[:, places]
    weight, bias = ridge(rows(F.relu(mask.linear1(summary))), gates, LAST_GATE_RIDGE)
    mask.linear2.weight[:, :, 0] = weight
    mask.linear2.bias.copy_(bias)
    round_weights(mask.linear2)


def fit_transit(student: Campplus, teacher: Campplus, number: int, state: State) -> State:
    """Fit the layer behind the dense block with this number, and return the outputs of both."""
    transit = student.xvector[f"transit{number}"]
    model = teacher.xvector[f"transit{number}"]
    theirs = model(state.theirs.clone())
    choose = inner_channels if number == 2 else last_channels
    keep = choose(teacher, theirs, transit.linear.out_channels)
    copy_norm(model.nonlinear, transit.nonlinear, state.channels)
    inputs = frames_of(transit.nonlinear(state.ours.clone()))
    transit.linear.weight[:, :, 0] = ridge_without_bias(inputs, frames_of(theirs[:, keep]), RIDGE)
    round_weights(transit.linear)
    ours = transit(state.ours.clone())
    errors = (ours - theirs[:, keep]).square().mean((0, 2)) / theirs[:, keep].var((0, 2))
    print(f"block {number}: {1 - errors.mean():.3f} of the variance explained", flush=True)
    return State(theirs, ours, keep)


def round_weights(module: nn.Module) -> None:
    """Give a module the weights that it has after storage in eight bits."""
    module.load_state_dict(dequantised("the student", quantised(module.state_dict())))


def inner_channels(teacher: Campplus, x: Tensor, count: int) -> list[int]:
    """Return the channels of ``x`` that the last block and the layer behind it need most."""
    block = teacher.xvector["block3"]
    transit = teacher.xvector["transit3"]
    whole = block(x, None, Segments.of(x, None, SEGMENT))
    consumers = [(one.nonlinear1, one.linear1, LAYER_SHARE / len(block)) for one in block.values()]
    consumers.append((transit.nonlinear, transit.linear, 1.0))
    found = importance(consumers, whole)[: x.shape[1]]
    return found.argsort(descending=True)[:count].sort().values.tolist()


def last_channels(teacher: Campplus, x: Tensor, count: int) -> list[int]:
    """Return the channels of ``x`` whose means and deviations tell most about the embedding."""
    activations = teacher.xvector["out_nonlinear"](x.clone())
    pooled = torch.stack((activations.mean(2), activations.std(2)), dim=2).flatten(1)
    dense = teacher.xvector["dense"]
    weight = dense.linear.weight[:, :, 0] / dense.nonlinear.batchnorm.running_var.sqrt()[:, None]
    weight = weight.unflatten(1, (2, -1)).transpose(1, 2).flatten(1)
    return kept(pooled - pooled.mean(0), weight, count, 2, 100 * DAMPING)


def importance(consumers: list[tuple[nn.Module, nn.Module, float]], x: Tensor) -> Tensor:
    """Return how much each channel of ``x`` (crops, channels, frames) matters to linear layers
    behind batch norms: the share of the variance of their inputs, times the squared weights.

    Args:
        consumers: batch norm and ReLU, linear layer, and weight; they read the first channels.
        x: what they read.
    """
    found = torch.zeros(x.shape[1])
    for norm, linear, weight in consumers:
        inputs = norm(x[:, : linear.in_channels].clone())
        share = linear.weight[:, :, 0].square().sum(0) * inputs.var((0, 2))
        found[: linear.in_channels] += weight * share / share.sum()
    return found


def kept(x: Tensor, weight: Tensor, count: int, size: int, damping: float) -> list[int]:
    """Return the groups of inputs that a linear layer needs most, found by backward elimination in
    which the remaining inputs take over the part of those that are removed (as in "Optimal Brain
    Surgeon", Hassibi and Stork 1992).

    Args:
        x: (rows, inputs), inputs of the layer.
        weight: (outputs, inputs) its weights.
        count: number of groups that remain.
        size: number of neighbouring inputs in a group.
        damping: see DAMPING.
    """
    gram = x.double().T @ x.double() / len(x)
    gram += damping * gram.diagonal().mean() * torch.eye(len(gram))
    inverse = torch.linalg.inv(gram)
    weight = weight.double().clone()
    groups = torch.arange(len(gram)).view(-1, size)
    alive = torch.arange(len(groups))
    while len(alive) > count:
        places = groups[alive]
        own = torch.linalg.inv(inverse[places[:, :, None], places[:, None, :]])
        parts = weight[:, places]
        cost = torch.einsum("ogi,gij,ogj->g", parts, own, parts)
        number = max(1, (len(alive) - count) // AT_ONCE)
        removed = cost.argsort()[:number]
        gone = places[removed].flatten()
        update = torch.linalg.inv(inverse[gone[:, None], gone]) @ inverse[gone]
        weight -= weight[:, gone] @ update
        inverse -= inverse[:, gone] @ update
        left = torch.ones(len(alive), dtype=torch.bool)
        left[removed] = False
        alive = alive[left]
    return alive.tolist()


def ridge(x: Tensor, y: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """Return the weight (outputs, inputs) and bias (outputs,) of a ridge regression."""
    x_mean = x.double().mean(0)
    y_mean = y.double().mean(0)
    weight = ridge_without_bias(x - x_mean.float(), y - y_mean.float(), strength)
    return weight, (y_mean - weight.double() @ x_mean).float()


def ridge_without_bias(x: Tensor, y: Tensor, strength: float) -> Tensor:
    """Return the weight (outputs, inputs) of a ridge regression without a bias."""
    gram = (x.T @ x).double() / len(x)
    gram += strength * gram.diagonal().mean() * torch.eye(len(gram))
    return torch.linalg.solve(gram, (x.T @ y).double() / len(x)).T.float()


def context(hidden: Tensor, segments: Segments) -> Tensor:
    """Return what the gates are computed from, (crops, channels, segments)."""
    whole, means = segments.means(hidden)
    return whole + means


def taps(x: Tensor, dilation: int, every: int) -> Tensor:
    """Return the three inputs of a kernel in each channel, (frames, 3 channels), of ``every`` so
    many frames of ``x``, (crops, channels, frames).
    """
    frames = x.shape[-1]
    padded = F.pad(x, (dilation, dilation))
    parts = [padded[..., shift * dilation : shift * dilation + frames] for shift in range(3)]
    return rows(torch.stack([part[..., 1::every] for part in parts], dim=2).flatten(1, 2))


def frames_of(x: Tensor) -> Tensor:
    """Return each so many frames (frames, channels) of ``x``, (crops, channels, frames)."""
    return rows(x[..., 1::EVERY])


def rows(x: Tensor) -> Tensor:
    """Return (crops * frames, channels) for (crops, channels, frames)."""
    return x.transpose(1, 2).flatten(0, 1)


def unsegmented(x: Tensor, crops: int) -> Tensor:
    """Return (crops, channels, segments), of which ``x`` has the rows."""
    return x.unflatten(0, (crops, -1)).transpose(1, 2)


def copy_norm(source: nn.Module, target: nn.Module, channels: list[int]) -> None:
    """Give a batch norm that of some channels of another."""
    for name, value in joined_norms([source]).items():
        getattr(target.batchnorm, name).copy_(value[channels])


def joined_norms(norms: list[nn.Module]) -> dict[str, Tensor]:
    """Return the weights and statistics of batch norms, one after the other."""
    names = ("weight", "bias", "running_mean", "running_var")
    return {name: torch.cat([getattr(one.batchnorm, name) for one in norms]) for name in names}
