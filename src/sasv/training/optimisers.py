"""Optimisers by name."""

from collections.abc import Iterable

import torch
from torch import nn

from sasv.core.errors import MissingExtra, SasvError

OPTIMISERS = ("adamw", "adam", "adamp", "sgd")
MOMENTUM = 0.9


def make_optimiser(
    name: str, parameters: Iterable[nn.Parameter], rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Return the optimiser called ``name``. MissingExtra where AdamP is wanted and its package is missing."""
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=weight_decay)
    if name == "adam":
        return torch.optim.Adam(parameters, lr=rate, weight_decay=weight_decay)
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=rate, weight_decay=weight_decay, momentum=MOMENTUM, nesterov=True)
    if name == "adamp":
        try:
            from pytorch_optimizer import AdamP
        except ImportError as error:
            raise MissingExtra("pytorch-optimizer", "optimisers", "the optimiser adamp") from error
        return AdamP(parameters, lr=rate, weight_decay=weight_decay)
    raise SasvError(f"unknown optimiser '{name}'; known: {', '.join(OPTIMISERS)}")
