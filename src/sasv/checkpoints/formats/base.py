"""The base class of weight formats."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from sasv.checkpoints.checkpoint import Checkpoint
from sasv.core.errors import CheckpointError


@dataclass
class Contents:
    """What a weight file holds, before anything is known about its layout.

    Attributes:
        path: the file; settings that some toolkits keep beside it are looked for in its folder.
        entries: name to tensor, wrappers (``module.``, ``state_dict`` and the like) taken off.
        metadata: texts in the header of a safetensors file.
        extras: what stood beside the tensors in a torch file, such as the settings of the model.
    """

    path: Path
    entries: dict[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name to shape."""
        return {name: tuple(value.shape) for name, value in self.entries.items()}


class WeightFormat:
    """A layout of weight files: recognises one by its entries, and makes a checkpoint of it.

    A format renames entries to those of the encoder, reads the encoder's options from shapes (and
    from settings in or beside the file), and sets the front-end and licence. The loader checks
    afterwards that every entry of the encoder is there with its shape and that the weights are
    finite: a format need not.

    Attributes:
        name: registry name.
        suffixes: of files that ``write`` makes; empty if the format is only read.
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = ()

    def recognises(self, contents: Contents) -> bool:
        """Whether the entries are laid out so."""
        raise NotImplementedError

    def read(self, contents: Contents) -> Checkpoint:
        """Make a checkpoint of a file that was recognised. CheckpointError where something is
        missing in it.
        """
        raise NotImplementedError

    def write(self, path: Path, checkpoint: Checkpoint) -> None:
        """Write a checkpoint atomically. CheckpointError if the format cannot hold it."""
        raise CheckpointError(f"{path}: the format {self.name} can be read, but not written")
