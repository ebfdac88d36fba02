"""Interpolates between the weights of two checkpoints of the same encoder."""

import copy

import torch

from sasv.checkpoints.checkpoint import Checkpoint
from sasv.core.errors import CheckpointError


def mixed(checkpoint: Checkpoint, other: Checkpoint, share: float) -> Checkpoint:
    """Return a checkpoint whose encoder weights are interpolated between those of two.

    A fine-tuned model thereby keeps more of the abilities of the model from which it was trained
    (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022). The loss head is that of
    ``checkpoint``. The threshold and calibration are not valid for the result and are left out.

    Args:
        checkpoint: the fine-tuned model.
        other: the model from which the fine-tuning started.
        share: share of the weights of ``checkpoint``, from 0 to 1.

    Raises:
        CheckpointError: the encoders differ in type or size.
    """
    shapes = {key: value.shape for key, value in checkpoint.encoder.items()}
    if {key: value.shape for key, value in other.encoder.items()} != shapes:
        raise CheckpointError(
            f"{other.name}: its encoder differs in type or size from that of {checkpoint.name}; "
            "weights can only be mixed with those of the model from which the training started"
        )
    encoder = dict(checkpoint.encoder)
    for key, value in encoder.items():
        if value.is_floating_point():
            encoder[key] = torch.lerp(other.encoder[key].float(), value.float(), share)
    specification = copy.deepcopy(checkpoint.specification)
    specification.decision = None
    specification.training["mixed"] = (
        f"{share:g} of these weights and {1 - share:g} of those of {other.name}"
    )
    return Checkpoint(specification, encoder, dict(checkpoint.head), checkpoint.name)
