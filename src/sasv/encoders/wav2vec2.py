"""Encoders with the backbones wav2vec 2.0, HuBERT, WavLM, and XLS-R (Baevski et al. 2020; Hsu et
al. 2021; Chen et al. 2022).
"""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from sasv.core.errors import SasvError
from sasv.encoders.selfsupervised import BackboneEncoder, LayerOutputs
from sasv.frontends.masks import keep, masked_mean, masked_variance, reduced

TINY = {
    "model_type": "wavlm",
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "conv_dim": [32, 32, 32],
    "conv_kernel": [10, 8, 4],
    "conv_stride": [5, 8, 4],
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "num_feat_extract_layers": 3,
}
"""Configuration of a small backbone with random weights, for experiments. (XLS-R has the type
wav2vec2.)
"""


class Wav2Vec2(BackboneEncoder):
    """Convolutions over the waveform, a transformer, and a head over the outputs of its layers."""

    name = "wav2vec2"
    model_types = ("wav2vec2", "hubert", "wavlm")
    presets = {
        "published": {},
        "tiny": {"config": TINY},
        "test": {
            "config": TINY | {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48},
            "embedding": 24,
        },
    }
    default_frontend = "waveform"
    default_frontend_options = {"normalise": True}

    def adapted_layers(self, model_type: str) -> tuple[str, ...]:
        """Return the names of the linear layers that ``lora`` adapts."""
        if (
            model_type == "wavlm"
        ):  # its attention uses the weights of its layers directly and would ignore the adapters
            return ("intermediate_dense", "output_dense")
        return super().adapted_layers(model_type)

    def check_features(self, name: str, settings: dict[str, Any]) -> None:
        """Check that a pretrained backbone was trained with the same sample rate and
        normalisation.
        """
        super().check_features(name, settings)
        normalised = self.frontend.option_values().get("normalise")
        wanted = settings.get("do_normalize", normalised)
        if normalised is not None and wanted != normalised:
            raise SasvError(
                f"{name}: this backbone is for waveforms that are "
                f"{'normalised' if wanted else 'not normalised'}; set --frontend-options "
                f"'{{normalise: {str(wanted).lower()}}}'"
            )

    def hidden_states(
        self, features: Tensor, mask: Tensor | None
    ) -> tuple[list[Tensor], Tensor | None]:
        x = features
        for layer in self.backbone.feature_extractor.conv_layers:
            x = layer.conv(keep(x, mask))
            mask = reduced(mask, layer.conv)
            norm = getattr(layer, "layer_norm", None)
            if isinstance(norm, nn.GroupNorm):
                x = _normed_over_time(norm, x, mask)
            elif norm is not None:
                x = norm(x.transpose(1, 2)).transpose(1, 2)
            x = layer.activation(x)
        projected = self.backbone.feature_projection(x.transpose(1, 2))
        projected = projected[0] if isinstance(projected, tuple) else projected
        allowed = None if mask is None else mask[:, 0]
        with LayerOutputs(self.layers()) as hidden, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask")  # of WavLM
            # The backbone changes its input in place.
            output = self.backbone.encoder(projected.clone(), attention_mask=allowed)
        return [*hidden[:-1], output.last_hidden_state], mask


def _normed_over_time(norm: nn.GroupNorm, x: Tensor, mask: Tensor | None) -> Tensor:
    """Apply a group norm with one channel per group, with statistics over the real frames only."""
    if mask is None or norm.num_groups != norm.num_channels:
        return norm(x)
    deviation = (masked_variance(x, mask, correction=0) + norm.eps).sqrt()
    normed = (x - masked_mean(x, mask)) / deviation
    return torch.addcmul(norm.bias[:, None], normed, norm.weight[:, None])
