"""Optimisers by name."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from sasv.core.errors import MissingExtra, SasvError
from sasv.encoders.base import Encoder, ParameterGroup

OPTIMISERS = ("adamw", "adam", "adamp", "sgd")
MOMENTUM = 0.9


def parameter_groups(encoder: Encoder, head: nn.Module) -> list[dict[str, Any]]:
    """Return the parameter groups of a training for a PyTorch optimiser.

    The learning rate of each group is that of the schedule times its ``lr_scale``. Frozen groups
    are left out. If all have the same learning rate, there is one group, in the order of the
    modules.
    """
    groups = [group for group in encoder.parameter_groups() if group.lr_scale > 0]
    if len(groups) == 1 and groups[0].lr_scale == 1.0:
        return [{"params": [*groups[0].parameters, *head.parameters()]}]
    groups.append(ParameterGroup("head", list(head.parameters())))
    return [
        {"params": group.parameters, "name": group.name, "lr_scale": group.lr_scale}
        for group in groups
    ]


def make_optimiser(
    name: str,
    parameters: Iterable[nn.Parameter] | list[dict[str, Any]],
    rate: float,
    weight_decay: float,
) -> torch.optim.Optimizer:
    """Make an optimiser; those of PyTorch are fused.

    Args:
        name: adamw, adam, adamp, or sgd.
        parameters: parameters or parameter groups.
        rate: learning rate.
        weight_decay: weight decay.

    Raises:
        SasvError: the name is unknown.
        MissingExtra: the package of AdamP is not installed.
    """
    common: dict[str, Any] = {"lr": rate, "weight_decay": weight_decay}
    if name == "adamw":
        return torch.optim.AdamW(parameters, fused=True, **common)
    if name == "adam":
        return torch.optim.Adam(parameters, fused=True, **common)
    if name == "sgd":
        return torch.optim.SGD(parameters, fused=True, momentum=MOMENTUM, nesterov=True, **common)
    if name == "adamp":
        try:
            from pytorch_optimizer import AdamP
        except ImportError as error:
            raise MissingExtra("pytorch-optimizer", "optimisers", "the optimiser adamp") from error
        return AdamP(parameters, **common)
    raise SasvError(f"unknown optimiser '{name}'; use one of: {', '.join(OPTIMISERS)}")
