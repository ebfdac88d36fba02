"""A checkpoint in memory: weights and specification."""

from dataclasses import dataclass, field

from torch import Tensor

from sasv.models.specification import Specification


@dataclass
class Checkpoint:
    """A model at rest: what it is, the entries of its encoder and of its loss head.

    Attributes:
        specification: metadata of the model.
        encoder: state dict of the encoder.
        head: state dict of the loss head; empty if there is none.
        name: where it came from, for messages.
        weight_format: registry name of the format that it was read from; empty where it was made.
    """

    specification: Specification
    encoder: dict[str, Tensor]
    head: dict[str, Tensor] = field(default_factory=dict)
    name: str = "checkpoint"
    weight_format: str = ""
