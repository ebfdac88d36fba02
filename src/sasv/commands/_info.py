"""sasv info."""

from dataclasses import asdict, dataclass
from typing import Any

from sasv.checkpoints import load_checkpoint, spawn_encoder
from sasv.core.options import Options
from sasv.encoders.base import parameters_of


@dataclass
class InfoOptions(Options):
    """Show what a checkpoint is, as JSON: the toolkit that wrote it, and its specification.

    Args:
        model: checkpoint.
    """

    model: str


def info(options: InfoOptions) -> dict[str, Any]:
    """Return the specification, number of parameters, file, and format of a checkpoint."""
    checkpoint = load_checkpoint(options.model)
    parameters = parameters_of(spawn_encoder(checkpoint, fill=False))
    return asdict(checkpoint.specification) | {
        "parameters": parameters,
        "file": checkpoint.name,
        "weight_format": checkpoint.weight_format,
    }
