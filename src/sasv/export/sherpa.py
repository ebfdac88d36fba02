"""Writes a network as an ONNX file for sherpa-onnx, which takes Kaldi filter banks as its input.

sherpa-onnx computes the features itself: 80 Kaldi filter banks from 20 Hz to 7600 Hz, whatever the
model was trained on. If its features differ, the embeddings differ as well, and a new threshold has
to be chosen. The file contains neither a decision nor a countermeasure.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sasv.checkpoints import Checkpoint, spawn_encoder
from sasv.core.errors import SasvError
from sasv.core.files import write_bytes
from sasv.core.onnx import new_session
from sasv.core.version import __version__
from sasv.embeddings.model import Model
from sasv.encoders.base import Encoder
from sasv.export.graph import exported
from sasv.export.proof import BOUND, sounds
from sasv.frontends.kaldi import KaldiOptions
from sasv.runtime.model import SUFFIX

MELS = 80
FEATURES = "feats"
EMBEDDING = "embs"
"""Names of the input (batch, frames, 80) and the output (batch, dimension), as in WeSpeaker."""


class FromFeatures(nn.Module):
    """Computes embeddings from filter banks (batch, frames, mels) of recordings of equal length."""

    def __init__(self, encoder: Encoder, subtract_mean: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.subtract_mean = subtract_mean

    def forward(self, features: Tensor) -> Tensor:
        if self.subtract_mean:
            features = features - features.mean(dim=1, keepdim=True)
        return self.encoder.embed_features(features.transpose(1, 2))


def export_for_sherpa(checkpoint: Checkpoint, out: str | os.PathLike[str]) -> dict[str, Any]:
    """Write a network for sherpa-onnx; return its metadata and the proof of the export.

    Args:
        checkpoint: a model with Kaldi filter banks.
        out: the file, ``.onnx``.

    Raises:
        SasvError: the model has other features, or the results of its export differ.
    """
    if Path(out).suffix != SUFFIX:
        raise SasvError(f"{out}: the name of an exported model must end with {SUFFIX}")
    options = checked_frontend(checkpoint)
    encoder = spawn_encoder(checkpoint).eval().requires_grad_(False)
    module = FromFeatures(encoder, options.subtract_mean)
    dynamic = torch.export.Dim.DYNAMIC
    proto = exported(module, {FEATURES: torch.zeros(2, 200, MELS)}, ({0: dynamic, 1: dynamic},))
    for node in proto.graph.node:
        for values in (node.input, node.output):
            for place, used in enumerate(values):
                if used == proto.graph.output[0].name:
                    values[place] = EMBEDDING
    proto.graph.output[0].name = EMBEDDING
    del proto.graph.value_info[:]
    specification = checkpoint.specification
    model = Model(checkpoint, "cpu")
    metadata = {
        "framework": "wespeaker",
        "language": "unknown",
        "url": "",
        "comment": f"exported by sasv {__version__}: {specification.encoder}",
        "sample_rate": str(specification.sample_rate),
        "output_dim": str(model.dimension),
        "normalize_samples": str(int(options.scale == 1.0)),
        "feature_normalize_type": "",
    }
    proto.producer_name = "sasv"
    proto.producer_version = __version__
    for name, value in metadata.items():
        entry = proto.metadata_props.add()
        entry.key = name
        entry.value = value
    data = proto.SerializeToString()
    distance = largest_distance(model, data)
    if not distance <= BOUND:
        raise SasvError(
            f"the exported network differs from the original by {distance:.1e} of the norm of an "
            f"embedding, more than {BOUND:.0e}; nothing was written"
        )
    write_bytes(out, data)
    return {"metadata": metadata, "distance": distance}


def checked_frontend(checkpoint: Checkpoint) -> KaldiOptions:
    """Return the options of the front-end. Raises SasvError if sherpa-onnx cannot compute its
    features.
    """
    encoder = spawn_encoder(checkpoint)
    options = encoder.frontend.options
    fits = (
        isinstance(options, KaldiOptions)
        and options.mels == MELS
        and options.scale in (1.0, 32768.0)
        and not options.normalise_variance
    )
    if not fits:
        raise SasvError(
            f"{checkpoint.name}: sherpa-onnx computes {MELS} Kaldi filter banks, but this model "
            f"uses other features (front-end {encoder.frontend.name}); export it with its "
            "front-end, without --sherpa"
        )
    assert isinstance(options, KaldiOptions)
    return options


def largest_distance(model: Model, data: bytes) -> float:
    """Return the largest distance between the embeddings of PyTorch and ONNX Runtime, relative to
    the norm of that of PyTorch, on sounds of five lengths.
    """
    session = new_session(data)
    specification = model.specification
    distances = []
    for wave in sounds(specification.sample_rate, specification.min_samples):
        expected = model.embed_whole([wave])[0]
        with torch.inference_mode():
            features = model.encoder.frontend(torch.from_numpy(wave)[None]).transpose(1, 2)
        found = session.run([EMBEDDING], {FEATURES: features.numpy()})[0][0]
        distances.append(np.linalg.norm(found - expected) / np.linalg.norm(expected))
    return float(max(distances))
