"""Exports a model, checks the export, and writes it."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sasv.checkpoints import Checkpoint
from sasv.core.errors import SasvError
from sasv.core.files import digest_of_bytes, write_bytes
from sasv.core.version import __version__
from sasv.embeddings.model import Model
from sasv.export.cost import LARGEST_CHANGE, Recordings, Trials, real_time_factor
from sasv.export.graph import OPSET, graph_of, to_onnx
from sasv.export.proof import prove, sounds
from sasv.export.quantise import quantised
from sasv.runtime.model import SUFFIX
from sasv.runtime.record import KEY, Record

logger = logging.getLogger("sasv")

FLOAT32 = "float32"
INT8 = "int8"


def export_model(
    checkpoint: Checkpoint,
    out: str | os.PathLike[str],
    int8: Recordings | None = None,
    trials: Trials | None = None,
) -> Record:
    """Write a model as one ONNX file and return its record, with the proof of the export.

    Args:
        checkpoint: the model.
        out: the file, ``.onnx``; an old one is replaced only by a proven new one.
        int8: recordings for quantising the network, but not the front-end, to eight bits; None
            keeps single precision.
        trials: development trials, on which the exported model is measured; layers are quantised
            only if the error rates stay.

    Raises:
        SasvError: the results of the exported model differ, or the model cannot be exported.
    """
    if Path(out).suffix != SUFFIX:
        raise SasvError(f"{out}: the name of an exported model must end with {SUFFIX}")
    model = Model(checkpoint, "cpu")
    graph = graph_of(model, checkpoint)
    proto = to_onnx(graph)
    if int8 is None:
        waves = sounds(model.specification.sample_rate, model.specification.min_samples)
        record, exported = _described(proto, model, checkpoint, FLOAT32, waves)
        if trials is not None:
            trials.measure(exported)
    else:
        frontend = f"encoder.{graph.encoder.frontend_attribute}."
        record, exported = _in_eight_bits(proto, frontend, model, checkpoint, int8, trials)
    write_bytes(out, exported)
    return record


def _in_eight_bits(
    proto: Any,
    frontend: str,
    model: Model,
    checkpoint: Checkpoint,
    int8: Recordings,
    trials: Trials | None,
) -> tuple[Record, bytes]:
    """Return the first quantised form of a model that keeps the error rates, and its record."""
    for candidate in quantised(proto, frontend, int8.ranges):
        record, exported = _described(candidate, model, checkpoint, INT8, int8.proof)
        if trials is not None:
            trials.measure(exported)
            change = max(trials.changes.values(), default=0.0)
            if change > LARGEST_CHANGE:
                logger.info(
                    f"an error rate changes by {change:.2f} percentage points, more than "
                    f"{LARGEST_CHANGE:g}"
                )
                continue
        original = proto.SerializeToString()
        rate = model.specification.sample_rate
        before, after = (real_time_factor(one, int8.proof, rate) for one in (original, exported))
        logger.info(
            f"eight bits: {len(exported) / 1e6:.1f} MB instead of {len(original) / 1e6:.1f} MB, "
            f"real-time factor {after:.4f} instead of {before:.4f} (one thread)"
        )
        return record, exported
    raise SasvError(
        "eight bits move the embeddings or the error rates of this model too far, with any choice "
        "of layers; nothing was written. Export it without --int8"
    )


def _described(
    proto: Any,
    model: Model,
    checkpoint: Checkpoint,
    precision: str,
    waves: Sequence[np.ndarray],
) -> tuple[Record, bytes]:
    """Compare an exported model with the original, and return its record and its bytes, which
    contain the record.
    """
    exported = proto.SerializeToString()
    proof = prove(model, exported, waves)
    proof.check(precision)
    fingerprint = model.fingerprint
    if precision != FLOAT32:
        fingerprint = digest_of_bytes(fingerprint, precision, exported)
    record = Record(
        specification=checkpoint.specification,
        fingerprint=fingerprint,
        dimension=model.dimension,
        opset=OPSET,
        precision=precision,
        three_class=model.three_class(),
        proof=proof.to_dict(),
    )
    proto.producer_name = "sasv"
    proto.producer_version = __version__
    entry = proto.metadata_props.add()
    entry.key = KEY
    entry.value = record.to_json()
    return record, proto.SerializeToString()
