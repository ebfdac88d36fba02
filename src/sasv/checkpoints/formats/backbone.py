"""Self-supervised backbones as hubs distribute them. They are recognised in order to refuse them as
models, because they compute no speaker embeddings before they are trained.

A folder of ``transformers`` contains ``config.json`` and ``model.safetensors`` or
``pytorch_model.bin``. Encoders with a backbone have this folder as an option.
"""

from sasv.checkpoints.checkpoint import Checkpoint
from sasv.checkpoints.formats.base import Contents, WeightFormat
from sasv.checkpoints.formats.foreign import settings_beside
from sasv.core.errors import CheckpointError
from sasv.encoders import ENCODERS

CONFIG = ("config.json",)
MARKS = {
    "wav2vec2": "feature_extractor.conv_layers.0.conv.weight",
    "w2v-bert": "feature_projection.projection.weight",
    "whisper": "encoder.embed_positions.weight",
}
"""Encoder -> end of the name of an entry that its backbones have. The first match is used."""


class BackboneFormat(WeightFormat):
    """Entries of a wav2vec 2.0, HuBERT, WavLM, XLS-R, w2v-BERT 2.0 or Whisper of
    ``transformers``.
    """

    name = "transformers"

    def recognises(self, contents: Contents) -> bool:
        return _encoder_of(contents) is not None

    def read(self, contents: Contents) -> Checkpoint:
        """Refuse the file, with instructions for training on it."""
        kind = settings_beside(contents.path, CONFIG).get("model_type")
        encoder = _encoder_for(kind) or _encoder_of(contents)
        raise CheckpointError(
            f"{contents.path}: a self-supervised backbone{f' ({kind})' if kind else ''}, which has "
            f"no speaker embedding yet; train on it: sasv train --encoder {encoder} "
            f"--encoder-options '{{backbone: {contents.path.parent}}}'"
        )


def _encoder_of(contents: Contents) -> str | None:
    """Return the encoder for backbones with such entries, None if there is none."""
    for encoder, mark in MARKS.items():
        if any(name == mark or name.endswith(f".{mark}") for name in contents.entries):
            return encoder
    return None


def _encoder_for(kind: object) -> str | None:
    """Return the encoder for backbones of a model type of ``transformers``."""
    return next((name for name in MARKS if kind in ENCODERS.get(name).model_types), None)
