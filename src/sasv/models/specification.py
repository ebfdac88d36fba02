"""The specification: the metadata of a checkpoint, which contains everything that is needed for
inference.
"""

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Any, get_type_hints

from sasv.core.errors import CheckpointError, SasvError
from sasv.core.files import parse_json
from sasv.core.options import Count, CropCount, CropSeconds, Range
from sasv.core.part_options import checked

FORMAT = 2
QUANTISED_FORMAT = 3
"""The same, of a file with 8-bit weights, which older versions cannot read."""
DEEPEST = 64
"""Maximum depth of nesting in the JSON of a specification."""
FORMAT_1_NAMES = {"sizes": "encoder_options", "rate": "sample_rate"}
"""Fields of format 1 that have a different name now."""

SCORING: dict[str, Any] = {
    "measure": str,
    "enrolment": str,
    "crops": CropCount,
    "crop_seconds": CropSeconds,
    "max_pause": Annotated[float, Range(0)] | None,
    "cohort": dict[str, Any] | None,
}
"""Fields of a record of how scores were made, with their types."""

WHOLE_UTTERANCES = {
    "measure": "cosine",
    "enrolment": "mean",
    "crops": 0,
    "max_pause": None,
    "cohort": None,
}
"""How the scores of a model are made if its specification does not say so: the cosine with the mean
of the raw enrolment embeddings, whole utterances, no s-norm.
"""


@dataclass
class Specification:
    """Specification of a model, stored as JSON in the header of its safetensors file.

    Attributes:
        encoder: name of the encoder in the registry.
        encoder_options: options of the encoder (sizes and others), with values of any JSON type.
        frontend: name of the front-end in the registry.
        frontend_options: options of the front-end.
        sample_rate: sample rate of the input of the front-end, in Hz.
        min_samples: number of samples of the shortest waveform that can be embedded.
        classes: names of the training classes, in the order of the loss head; if the names of the
            speakers are unknown, their numbers.
        spoof_index: index of the class of spoofed speech (always the last), or None if the model
            was trained without spoofed speech.
        loss: name in the registry of the loss whose head is stored, or "".
        scoring: how the scores for ``decision`` are made: enrolment rule, crops, cohort
            of s-norm (see scores.scoring.Scoring.to_dict). A high score means bona fide speech of
            the claimed speaker.
        decision: calibration with its cost model, threshold with its source, and the requirements
            on recordings (see decision.Verifier.decision_record); None if none of these was chosen.
        licence: licence of the weights.
        training: record of the training (stage, data, seed, version).
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
        """Scores of at least this value are accepted; None if no threshold was chosen."""
        return (self.decision or {}).get("threshold")

    @property
    def threshold_source(self) -> str:
        """Data and rule from which the threshold was determined."""
        return str((self.decision or {}).get("threshold_source", ""))

    @property
    def calibration(self) -> dict[str, Any] | None:
        """Mapping from scores to log-likelihood ratios (see calibration.Backend), or None."""
        return (self.decision or {}).get("calibration")

    def to_json(self) -> str:
        """Return the specification as JSON. Raises SasvError if a number is not finite, which JSON
        cannot represent.
        """
        try:
            return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False)
        except ValueError as error:
            raise SasvError(
                f"the specification of {self.encoder} contains a number that is not finite"
            ) from error

    @classmethod
    def from_json(cls, text: str, name: str) -> "Specification":
        """Parse the JSON from the file ``name``. Raises CheckpointError if it is not a
        specification.
        """
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
        if version > QUANTISED_FORMAT:
            raise CheckpointError(
                f"{name}: written by a newer version of sasv (format {version}); upgrade with pip "
                "install -U sasv"
            )
        if version == 1:
            values = _from_format_1(values)
        # Older specifications recorded neither the scoring nor the decision.
        if isinstance(values.get("scoring", ""), str):
            values = _with_decision(values)
        known = {entry.name for entry in fields(cls)}
        unknown = sorted(set(values) - known)
        missing = sorted({"encoder", "encoder_options"} - set(values))
        if unknown or missing:
            raise CheckpointError(
                f"{name}: its specification has the unknown keys {unknown} and lacks the keys "
                f"{missing}"
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
    """Return the nesting depth of JSON values, without recursion, counting up to DEEPEST."""
    level = [value]
    depth = 0
    while level and depth <= DEEPEST:
        depth += 1
        lists = [list(part.values()) if isinstance(part, dict) else part for part in level]
        level = [inner for part in lists if isinstance(part, list) for inner in part]
    return depth


def _from_format_1(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of format 1 under their current names. In format 1, the size of the
    front-end was an option of the encoder.
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
    """Return the current values for an older specification, in which calibration and threshold were
    separate fields.
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
