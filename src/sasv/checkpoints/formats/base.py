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
    """The contents of a weight file before its layout is known.

    Attributes:
        path: the file. Settings files of some toolkits are searched for in its folder.
        entries: name -> tensor, without wrappers (``module.``, ``state_dict`` and the like).
        metadata: texts in the header of a safetensors file.
        extras: other values in a torch file, such as the settings of the model.
    """

    path: Path
    entries: dict[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return name -> shape of the entries."""
        return {name: tuple(value.shape) for name, value in self.entries.items()}


class WeightFormat:
    """A layout of weight files, which recognises a file by its entries and makes a checkpoint of
    it.

    A format renames entries to the state-dict keys of the encoder, infers the options of the
    encoder from shapes (and from settings in the file or in its folder), and sets the front-end and
    licence. It does not have to check that all entries exist with the right shapes and that the
    weights are finite; the loader does that afterwards.

    Attributes:
        name: registry name.
        suffixes: suffixes of the files that ``write`` writes; empty if the format is read-only.
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = ()

    def recognises(self, contents: Contents) -> bool:
        """Whether the file has this layout."""
        raise NotImplementedError

    def read(self, contents: Contents) -> Checkpoint:
        """Make a checkpoint of a recognised file.

        Raises:
            CheckpointError: an entry or setting that is needed is missing or contradictory.
        """
        raise NotImplementedError

    def write(self, path: Path, checkpoint: Checkpoint) -> None:
        """Write a checkpoint atomically.

        Raises:
            CheckpointError: the format cannot represent the checkpoint, or is read-only.
        """
        raise CheckpointError(f"{path}: the format {self.name} can be read, but not written")
