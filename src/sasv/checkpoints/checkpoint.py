"""A checkpoint in memory: weights and specification."""

from dataclasses import dataclass, field

from torch import Tensor

from sasv.models.specification import Specification


@dataclass
class Checkpoint:
    """A stored model: its specification, and the weights of its encoder and loss head.

    Attributes:
        specification: metadata of the model.
        encoder: state dict of the encoder.
        head: state dict of the loss head; empty if there is none.
        name: origin of the checkpoint, for messages.
        weight_format: registry name of the format of its file; empty if it was not read from a
            file.
    """

    specification: Specification
    encoder: dict[str, Tensor]
    head: dict[str, Tensor] = field(default_factory=dict)
    name: str = "checkpoint"
    weight_format: str = ""
