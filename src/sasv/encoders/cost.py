"""Counts the floating-point operations of an encoder."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from sasv.encoders import make_encoder


def gflop(
    name: str, options: Mapping[str, Any] | None = None, seconds: float = 2.0, backward: bool = True
) -> float:
    """Return the billions of floating-point operations of an encoder on a waveform of so many
    seconds.

    Matrix products and convolutions are counted, a multiplication and an addition as two
    operations. Nothing is computed: the tensors have shapes alone. The default is the cost of a
    training crop in the published Stage 1.

    Args:
        name: registry name of the encoder; its front-end is that of its publication.
        options: options of the encoder that differ from the published ones.
        seconds: length of the waveform.
        backward: count the gradients too, as in training.
    """
    return _gflop(name, json.dumps(options or {}, sort_keys=True), seconds, backward)


@cache
def _gflop(name: str, options: str, seconds: float, backward: bool) -> float:
    with FakeTensorMode():
        encoder = make_encoder(name, json.loads(options)).train(backward)
        if not backward:
            encoder.requires_grad_(False)
        waves = torch.empty(
            2, round(seconds * encoder.frontend.sample_rate)
        )  # batch norm wants two
        with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(backward):
            embeddings = encoder(waves)
            if backward:
                embeddings.sum().backward()
    return float(counter.get_total_flops()) / len(waves) / 1e9
