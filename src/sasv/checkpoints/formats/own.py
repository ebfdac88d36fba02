"""The format of sasv: a safetensors file whose header contains the specification as JSON."""

from dataclasses import replace
from pathlib import Path

from safetensors.torch import save

from sasv.checkpoints.checkpoint import Checkpoint
from sasv.checkpoints.formats.base import Contents, WeightFormat
from sasv.checkpoints.formats.split import joined, split
from sasv.checkpoints.quantised import dequantised, is_quantised
from sasv.core.files import write_bytes
from sasv.models.specification import FORMAT, QUANTISED_FORMAT, Specification

ENCODER = "encoder."
HEAD = "head."
METADATA_KEY = "sasv"


class SasvFormat(WeightFormat):
    """Entries ``encoder.*`` and ``head.*``. Weights of eight bits have their scales beside them,
    see ``sasv.checkpoints.quantised``.
    """

    name = "sasv"
    suffixes = (".safetensors",)

    def recognises(self, contents: Contents) -> bool:
        return METADATA_KEY in contents.metadata

    def read(self, contents: Contents) -> Checkpoint:
        """Read the specification from the header, and separate the entries of encoder and head."""
        name = str(contents.path)
        specification = Specification.from_json(contents.metadata[METADATA_KEY], name)
        encoder, head = split(name, dequantised(name, contents.entries), ENCODER, HEAD)
        return Checkpoint(specification, encoder, head, name)

    def write(self, path: Path, checkpoint: Checkpoint) -> None:
        """Write the specification into the header of a safetensors file."""
        entries = joined(checkpoint, ENCODER, HEAD)
        version = QUANTISED_FORMAT if is_quantised(entries) else FORMAT
        specification = replace(checkpoint.specification, format=version)
        write_bytes(path, save(entries, {METADATA_KEY: specification.to_json()}))
