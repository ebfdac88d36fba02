"""WeSpeaker's w2v-BERT 2.0 with adapters (``W2VBert_Adapter_MFA``, with ``config.yaml`` in the same
folder).

The backbone has the keys of ``transformers`` with the prefix ``frontend.encoder.``; the keys of the
head have no prefix. The sizes are inferred from the shapes; what shapes do not show is as in
w2v-BERT 2.0.
"""

from typing import Any

from sasv.checkpoints.checkpoint import Checkpoint
from sasv.checkpoints.formats.base import Contents, WeightFormat
from sasv.checkpoints.formats.foreign import (
    Rules,
    Shapes,
    check_settings,
    checkpoint_of,
    missing_entry,
    numbered,
    renamed,
    settings_beside,
    without,
)
from sasv.checkpoints.formats.wespeaker import CONFIG, TRAINING_HEAD

ENCODER = "w2v-bert"
MARK = "frontend.encoder.feature_projection.projection.weight"
RULES: Rules = [
    (r"frontend\.encoder\.(.*)", r"backbone.\1"),
    (r"((?:adapter_layers|pooling|bottleneck)\..*)", r"head.\1"),
]


def backbone_config(shapes: Shapes) -> dict[str, Any]:
    """Infer the configuration of the backbone from the shapes of its entries.

    Raises:
        KeyError: an entry is missing.
    """
    units, inputs = shapes["backbone.feature_projection.projection.weight"]
    layer = "backbone.encoder.layers.0."
    width = shapes[layer + "self_attn.distance_embedding.weight"][1]
    config: dict[str, Any] = {
        "model_type": "wav2vec2-bert",
        "hidden_size": units,
        "num_hidden_layers": numbered(shapes, r"backbone\.encoder\.layers\.(\d+)\."),
        "num_attention_heads": units // width,
        "intermediate_size": shapes[layer + "ffn1.intermediate_dense.weight"][0],
        "feature_projection_input_dim": inputs,
        "conv_depthwise_kernel_size": shapes[layer + "conv_module.depthwise_conv.weight"][2],
        "add_adapter": False,
    }
    if "backbone.masked_spec_embed" not in shapes:
        config |= {"mask_time_prob": 0.0, "mask_feature_prob": 0.0}
    return config


class WespeakerW2vBertFormat(WeightFormat):
    """Entries of WeSpeaker's models with the backbone w2v-BERT 2.0."""

    name = "wespeaker-w2vbert"

    def recognises(self, contents: Contents) -> bool:
        return MARK in contents.entries and "adapter_layers.0.0.weight" in contents.entries

    def read(self, contents: Contents) -> Checkpoint:
        entries = renamed(without(contents.entries, TRAINING_HEAD), RULES, contents.path)
        shapes = {name: tuple(value.shape) for name, value in entries.items()}
        try:
            config = backbone_config(shapes)
            embedding = shapes["head.bottleneck.weight"][0]
            adapter = shapes["head.adapter_layers.0.0.weight"][0]
        except (KeyError, IndexError, ValueError) as error:
            raise missing_entry(contents, ENCODER, error) from error
        expected = {
            "feat_dim": config["hidden_size"],
            "embed_dim": embedding,
            "adapter_dim": adapter,
            "num_frontend_hidden_layers": config["num_hidden_layers"],
            "pooling_func": "ASP",
        }
        check_settings(contents.path, settings_beside(contents.path, CONFIG), expected)
        options = {
            "config": config,
            "head": "adapter-mfa",
            "embedding": embedding,
            "adapter": adapter,
        }
        mels = config["feature_projection_input_dim"] // 2
        frontend = {"mels": mels, "scale": 32768.0, "normalise_variance": True}
        return checkpoint_of(contents, entries, ENCODER, options, "kaldi", frontend)
