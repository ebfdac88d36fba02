"""The specification: the metadata of a checkpoint, from which everything needed for inference is
taken.
"""

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Any, get_type_hints

from sasv.core.errors import CheckpointError, SasvError
from sasv.core.files import parse_json
from sasv.core.options import Count, CropCount, CropSeconds, Range
from sasv.core.part_options import checked

FORMAT = 2
DEEPEST = 64
"""Levels of nesting in the JSON of a specification."""
FORMAT_1_NAMES = {"sizes": "encoder_options", "rate": "sample_rate"}
"""Fields of format 1 that have another name now."""

SCORING: dict[str, Any] = {
    "measure": str,
    "enrolment": str,
    "crops": CropCount,
    "crop_seconds": CropSeconds,
    "max_pause": Annotated[float, Range(0)] | None,
    "cohort": dict[str, Any] | None,
}
"""What a record of how scores were made holds."""

WHOLE_UTTERANCES = {
    "measure": "cosine",
    "enrolment": "mean",
    "crops": 0,
    "max_pause": None,
    "cohort": None,
}
"""How the scores of a model were made that does not say it: the cosine with the mean of the raw
enrolment embeddings, whole utterances, no s-norm."""


@dataclass
class Specification:
    """Specification of a model, stored as JSON in the header of its safetensors file.

    Attributes:
        encoder: registry name of the encoder.
        encoder_options: options of the encoder (sizes and others), values of any JSON type.
        frontend: registry name of the front-end.
        frontend_options: options of the front-end.
        sample_rate: samples per second of the audio that the front-end takes.
        min_samples: shortest waveform that gives an embedding.
        classes: names of the training classes, in the order of the head; names of unknown speakers
            are their numbers.
        spoof_index: class of spoofed speech (always the last), or None if the model was trained
            without.
        loss: registry name of the loss whose head is stored, or "".
        scoring: how the scores for ``decision`` are made: enrolment rule, crops, cohort
            of s-norm (see scores.scoring.Scoring.to_dict). A high score means bona fide speech of
            the claimed speaker.
        decision: calibration with its cost model, threshold with its source, and what recordings
            have to hold to be compared (see decision.Verifier.decision_record); None if nothing
            was chosen.
        licence: licence of the weights.
        training: what made the model (stage, data, seed, version).
        format: version of this layout.
    """

    encoder: str
    encoder_options: dict[str, Any]
    frontend: str = "log-mel"
    frontend_options: dict[str, Any] = field(default_factory=dict)
    sample_rate: Annotated[int, Range(1000, 384_000)] = 16000
    min_samples: Annotated[int, Range(1, 100_000_000)] = 1600
    classes: list[str] = field(default_factory=list)
    spoof_index: Count | None = None
    loss: str = ""
    scoring: dict[str, Any] = field(default_factory=lambda: dict(WHOLE_UTTERANCES))
    decision: dict[str, Any] | None = None
    licence: str = "unknown"
    training: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def threshold(self) -> float | None:
        """Scores of at least this are accepted; None where none was chosen."""
        return (self.decision or {}).get("threshold")

    @property
    def threshold_source(self) -> str:
        """Data and rule that gave the threshold."""
        return str((self.decision or {}).get("threshold_source", ""))

    @property
    def calibration(self) -> dict[str, Any] | None:
        """Score to log-likelihood ratio (see calibration.Backend), or None."""
        return (self.decision or {}).get("calibration")

    def to_json(self) -> str:
        """Return the JSON text. SasvError if a number is not finite, which JSON cannot hold."""
        try:
            return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False)
        except ValueError as error:
            raise SasvError(
                f"the specification of {self.encoder} contains a number that is not finite"
            ) from error

    @classmethod
    def from_json(cls, text: str, name: str) -> "Specification":
        """Parse the JSON text of file ``name``. CheckpointError if it is not a specification."""
        try:
            values = parse_json(text)
            too_deep = _depth(values) > DEEPEST
        except (ValueError, RecursionError) as error:
            raise CheckpointError(
                f"{name}: its specification is not JSON ({error}); convert the model again"
            ) from error
        if too_deep or not isinstance(values, dict):
            raise CheckpointError(
                f"{name}: its specification is not a mapping of fields; convert the model again"
            )
        try:
            return cls._from_values(values, name)
        except CheckpointError:
            raise
        except SasvError as error:
            raise CheckpointError(f"{name}: {error}") from error

    @classmethod
    def _from_values(cls, values: dict[str, Any], name: str) -> "Specification":
        version = checked(values.get("format", 1), int, "format of the specification")
        if version > FORMAT:
            raise CheckpointError(
                f"{name}: written by a newer sasv (format {version}); upgrade: pip install -U sasv"
            )
        if version == 1:
            values = _from_format_1(values)
        if isinstance(values.get("scoring", ""), str):  # before scoring and decision were recorded
            values = _with_decision(values)
        known = {entry.name for entry in fields(cls)}
        unknown = sorted(set(values) - known)
        missing = sorted({"encoder", "encoder_options"} - set(values))
        if unknown or missing:
            raise CheckpointError(
                f"{name}: specification with unknown keys {unknown} and missing keys {missing}"
            )
        hints = get_type_hints(cls, include_extras=True)
        specification = cls(
            **{
                key: checked(value, hints[key], f"{key} of the specification")
                for key, value in values.items()
            }
        )
        for key, value in specification.scoring.items():
            checked(value, SCORING.get(key, Any), f"{key} of the scoring in the specification")
        index = specification.spoof_index
        if index is not None and index >= len(specification.classes):
            raise SasvError(
                f"spoof_index of the specification is {index}, but it has "
                f"{len(specification.classes)} classes"
            )
        return specification


def _depth(value: Any) -> int:
    """Return how deeply JSON values are nested, without recursion; counting stops past DEEPEST."""
    level = [value]
    depth = 0
    while level and depth <= DEEPEST:
        depth += 1
        lists = [list(part.values()) if isinstance(part, dict) else part for part in level]
        level = [inner for part in lists if isinstance(part, list) for inner in part]
    return depth


def _from_format_1(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of format 1 under the names of today. The size of the front-end was one of
    the encoder.
    """
    renamed = {FORMAT_1_NAMES.get(key, key): value for key, value in values.items()} | {
        "format": FORMAT
    }
    options = renamed.get("encoder_options")
    if isinstance(options, dict) and "mels" in options:
        renamed["encoder_options"] = {key: value for key, value in options.items() if key != "mels"}
        renamed["frontend_options"] = {"mels": options["mels"]}
    return renamed


def _with_decision(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of an older specification, whose calibration and threshold were fields of
    their own.
    """
    old = ("scoring", "direction", "threshold", "threshold_source", "calibration")
    result = {key: value for key, value in values.items() if key not in old}
    decision = {
        key: values[key]
        for key in ("calibration", "threshold", "threshold_source")
        if values.get(key)
    }
    threshold = checked(values.get("threshold"), float | None, "threshold of the specification")
    if threshold is not None:
        decision["threshold"] = threshold
    return result | {"decision": decision or None}
