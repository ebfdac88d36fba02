"""The metadata of an exported model, stored as one entry in JSON."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from sasv.core.errors import CheckpointError, SasvError
from sasv.core.files import parse_json
from sasv.core.part_options import checked
from sasv.models import Specification
from sasv.scores import SpoofHead, ThreeClass, TrialClasses

KEY = "sasv"
"""Entry of the metadata that contains the record."""

FORMAT = 1
SAMPLES = "samples"
LENGTHS = "lengths"
EMBEDDING = "embedding"
CM_SCORE = "cm_score"
"""Names of the inputs (batch, samples) and (batch,), and of the outputs (batch, dimension) and
(batch,) of the graph; ``cm_score`` exists if the model has a countermeasure score.
"""


@dataclass(frozen=True)
class Record:
    """The record of an exported model.

    Attributes:
        specification: specification of the model; its scoring and decision apply to the exported
            file.
        fingerprint: digest of the model that was exported; an int8 model has a different one,
            because its embeddings differ.
        dimension: dimension of the embeddings.
        opset: version of the ONNX operators.
        precision: float32 or int8.
        three_class: the classes by which a model with the three-class loss decides, or None.
        proof: how the exported model was compared with the original (see export.proof.Proof).
    """

    specification: Specification
    fingerprint: str
    dimension: int
    opset: int
    precision: str = "float32"
    three_class: ThreeClass | None = None
    proof: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the record as JSON."""
        values = {
            "format": FORMAT,
            "specification": asdict(self.specification),
            "fingerprint": self.fingerprint,
            "dimension": self.dimension,
            "opset": self.opset,
            "precision": self.precision,
            "three_class": None if self.three_class is None else _values(self.three_class),
            "proof": self.proof,
        }
        try:
            return json.dumps(values, ensure_ascii=False, allow_nan=False)
        except ValueError as error:
            raise SasvError(
                f"the record of {self.specification.encoder} contains a number that is not finite"
            ) from error

    @classmethod
    def from_json(cls, text: str, name: str) -> "Record":
        """Parse the JSON from the file ``name``. Raises CheckpointError if it is not a record."""
        try:
            values = checked(parse_json(text), dict[str, Any], "record")
            version = checked(values.get("format"), int, "format")
            if version > FORMAT:
                raise CheckpointError(
                    f"{name}: exported by a newer version of sasv (format {version}); upgrade with "
                    "pip install -U sasv"
                )
            specification = json.dumps(checked(values["specification"], dict[str, Any], "record"))
            three_class = values.get("three_class")
            return cls(
                specification=Specification.from_json(specification, name),
                fingerprint=checked(values["fingerprint"], str, "fingerprint"),
                dimension=checked(values["dimension"], int, "dimension"),
                opset=checked(values["opset"], int, "opset"),
                precision=checked(values["precision"], str, "precision"),
                three_class=None if three_class is None else _three_class(three_class),
                proof=checked(values.get("proof", {}), dict[str, Any], "proof"),
            )
        except CheckpointError:
            raise
        except (ValueError, RecursionError, KeyError, TypeError, SasvError) as error:
            raise CheckpointError(
                f"{name}: its metadata is invalid ({error}); export the model again"
            ) from error


def _values(three_class: ThreeClass) -> dict[str, Any]:
    return {
        "head": {"weight": three_class.head.weight.tolist(), "bias": three_class.head.bias},
        "classes": {
            "weight": three_class.classes.weight.tolist(),
            "bias": three_class.classes.bias.tolist(),
        },
    }


def _three_class(values: Mapping[str, Any]) -> ThreeClass:
    head, classes = values["head"], values["classes"]
    return ThreeClass(
        SpoofHead(np.array(head["weight"], np.float32), float(head["bias"])),
        TrialClasses(
            np.array(classes["weight"], np.float32), np.array(classes["bias"], np.float32)
        ),
    )
