"""Optimisers by name."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from sasv.core.errors import MissingExtra, SasvError

OPTIMISERS = ("adamw", "adam", "adamp", "sgd")
MOMENTUM = 0.9


def make_optimiser(
    name: str, parameters: Iterable[nn.Parameter], rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Return the optimiser called ``name``, torch's own fused. MissingExtra where AdamP's package is missing."""
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
    raise SasvError(f"unknown optimiser '{name}'; known: {', '.join(OPTIMISERS)}")
