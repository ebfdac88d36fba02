"""Self-supervised backbones as hubs distribute them. They are recognised and refused as models,
because they give no speaker embedding until they have been trained to.

A folder of ``transformers`` holds ``config.json`` and ``model.safetensors`` or
``pytorch_model.bin``. The encoders on a backbone take the folder as an option.
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
"""Encoder to the end of the name of an entry that its backbones have; the first one counts."""


class BackboneFormat(WeightFormat):
    """Entries of a wav2vec 2.0, HuBERT, WavLM, XLS-R, w2v-BERT 2.0 or Whisper of
    ``transformers``.
    """

    name = "transformers"

    def recognises(self, contents: Contents) -> bool:
        return _encoder_of(contents) is not None

    def read(self, contents: Contents) -> Checkpoint:
        """Refuse the file, and say how to train on it."""
        kind = settings_beside(contents.path, CONFIG).get("model_type")
        encoder = _encoder_for(kind) or _encoder_of(contents)
        raise CheckpointError(
            f"{contents.path}: a self-supervised backbone{f' ({kind})' if kind else ''}, which has "
            f"no speaker embedding yet; train on it: sasv train --encoder {encoder} "
            f"--encoder-options '{{backbone: {contents.path.parent}}}'"
        )


def _encoder_of(contents: Contents) -> str | None:
    """Return the encoder on backbones with such entries, None if there is none."""
    for encoder, mark in MARKS.items():
        if any(name == mark or name.endswith(f".{mark}") for name in contents.entries):
            return encoder
    return None


def _encoder_for(kind: object) -> str | None:
    """Return the encoder on backbones of a type of ``transformers``."""
    return next((name for name in MARKS if kind in ENCODERS.get(name).model_types), None)
