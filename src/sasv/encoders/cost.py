"""Counts the floating-point operations of encoders."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from sasv.encoders import ENCODERS, make_encoder


def gflop(
    name: str, options: Mapping[str, Any] | None = None, seconds: float = 2.0, backward: bool = True
) -> float:
    """Return the number of floating-point operations of an encoder, in billions.

    Only matrix products and convolutions are counted, with a multiplication and an addition as two
    operations. Nothing is computed, because the tensors are on the meta device. The defaults give
    the cost of a training crop in the published Stage 1.

    Args:
        name: registry name of the encoder, which is used with the front-end of its publication.
        options: options of the encoder that differ from the published ones.
        seconds: length of the waveform in seconds.
        backward: whether to include the backward pass, as in training.
    """
    sized = ENCODERS.get(name).sized(options or {})
    return _gflop(name, json.dumps(sized, sort_keys=True), seconds, backward)


@cache
def _gflop(name: str, options: str, seconds: float, backward: bool) -> float:
    with FakeTensorMode():
        encoder = make_encoder(name, json.loads(options)).train(backward)
        if not backward:
            encoder.requires_grad_(False)
        waves = torch.empty(
            2, round(seconds * encoder.frontend.sample_rate)
        )  # batch norm needs two rows in training mode
        with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(backward):
            embeddings = encoder(waves)
            if backward:
                embeddings.sum().backward()
    return float(counter.get_total_flops()) / len(waves) / 1e9
