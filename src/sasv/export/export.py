"""Exports a model, checks the export, and writes it."""

import logging
import os
from pathlib import Path

from sasv.checkpoints import Checkpoint
from sasv.core.errors import SasvError
from sasv.core.files import digest_of_bytes, write_bytes
from sasv.core.version import __version__
from sasv.embeddings.model import Model
from sasv.export.cost import Recordings, real_time_factor
from sasv.export.graph import OPSET, graph_of, to_onnx
from sasv.export.proof import prove, sounds
from sasv.export.quantise import quantised
from sasv.runtime.model import SUFFIX
from sasv.runtime.record import KEY, Record

logger = logging.getLogger("sasv")

FLOAT32 = "float32"
INT8 = "int8"


def export_model(
    checkpoint: Checkpoint, out: str | os.PathLike[str], int8: Recordings | None = None
) -> Record:
    """Write a model as one ONNX file and return its record, with the proof of the export.

    Args:
        checkpoint: the model.
        out: the file, ``.onnx``; an old one is replaced only by a proven new one.
        int8: recordings for quantising the network, but not the front-end, to eight bits; None
            keeps single precision.

    Raises:
        SasvError: the results of the exported model differ, or the model cannot be exported.
    """
    if Path(out).suffix != SUFFIX:
        raise SasvError(f"{out}: the name of an exported model must end with {SUFFIX}")
    model = Model(checkpoint, "cpu")
    graph = graph_of(model, checkpoint)
    proto = to_onnx(graph)
    precision = FLOAT32
    fingerprint = model.fingerprint
    waves = sounds(model.specification.sample_rate, model.specification.min_samples)
    original = b""
    if int8 is not None:
        precision = INT8
        original = proto.SerializeToString()
        proto = quantised(proto, f"encoder.{graph.encoder.frontend_attribute}.", int8.ranges)
        fingerprint = digest_of_bytes(model.fingerprint, INT8, proto.SerializeToString())
        waves = int8.proof
    exported = proto.SerializeToString()
    proof = prove(model, exported, waves)
    proof.check(precision)
    if int8 is not None:
        rate = model.specification.sample_rate
        before, after = (real_time_factor(one, waves, rate) for one in (original, exported))
        logger.info(
            f"eight bits: {len(exported) / 1e6:.1f} MB instead of {len(original) / 1e6:.1f} MB, "
            f"real-time factor {after:.4f} instead of {before:.4f} (one thread)"
        )
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
    write_bytes(out, proto.SerializeToString())
    return record
