"""What a checkpoint says of itself, so that inference never asks the user."""

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from sasv.core.errors import CheckpointError


@dataclass
class Specification:
    """Specification of a model, stored as JSON in the header of its safetensors file.

    Attributes:
        encoder: registry name of the encoder.
        sizes: sizes of the encoder.
        rate: samples per second the encoder wants.
        min_samples: shortest waveform that gives an embedding.
        classes: names of the training classes, in the order of the head; names of unknown speakers are their numbers.
        spoof_index: class of spoofed speech (always the last), or None where the model was trained without.
        loss: registry name of the loss whose head is stored, or "".
        scoring: how two embeddings are compared.
        direction: what a high score means.
        threshold: scores of at least this accept, or None where none was chosen.
        threshold_source: data and rule that gave the threshold.
        calibration: score to log-likelihood ratio, with the costs it was made for (see calibration.Backend), or None.
        licence: licence of the weights.
        training: what made the model (stage, data, seed, version).
        format: version of this layout.
    """

    encoder: str
    sizes: dict[str, int]
    rate: int = 16000
    min_samples: int = 1600
    classes: list[str] = field(default_factory=list)
    spoof_index: int | None = None
    loss: str = ""
    scoring: str = "cosine"
    direction: str = "higher: the claimed speaker, bona fide"
    threshold: float | None = None
    threshold_source: str = ""
    calibration: dict[str, Any] | None = None
    licence: str = "unknown"
    training: dict[str, Any] = field(default_factory=dict)
    format: int = 1

    def to_json(self) -> str:
        """Return the JSON text."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, name: str) -> "Specification":
        """Parse the JSON text of file ``name``. CheckpointError where it is not a specification."""
        try:
            values = json.loads(text)
            version = values.get("format", 1)
        except (ValueError, AttributeError) as error:
            raise CheckpointError(
                f"{name}: its specification is not JSON ({error}); convert the model again"
            ) from error
        if version > 1:
            raise CheckpointError(f"{name}: written by a newer sasv (format {version}); upgrade: pip install -U sasv")
        known = {entry.name for entry in fields(cls)}
        unknown = sorted(set(values) - known)
        missing = sorted({"encoder", "sizes"} - set(values))
        if unknown or missing:
            raise CheckpointError(f"{name}: specification with unknown keys {unknown} and missing keys {missing}")
        return cls(**values)
