"""Encoders with the encoder of Whisper (Radford et al. 2022) as backbone, for utterances of up to
30 s.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sasv.core.errors import SasvError
from sasv.encoders.selfsupervised import BackboneEncoder, BackboneOptions
from sasv.frontends.base import Frontend
from sasv.frontends.masks import convolve

TINY = {
    "model_type": "whisper",
    "d_model": 64,
    "encoder_layers": 3,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_layers": 1,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 64,
    "vocab_size": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 3,
}
"""Configuration of a small backbone with random weights, for experiments."""


class Whisper(BackboneEncoder):
    """Log-mel features, two convolutions, a transformer, and a head over the outputs of its layers.

    Unlike in Whisper itself, utterances are not padded to 30 s with silence. Positions are the
    same, and longer utterances are cut.
    """

    name = "whisper"
    model_types = ("whisper",)
    layers_attribute = "layers"
    export_extra_row = False
    presets = {
        "published": {},
        "tiny": {"config": TINY},
        "test": {"config": TINY, "embedding": 24},
    }
    default_frontend = "whisper"

    def __init__(self, options: BackboneOptions, frontend: Frontend) -> None:
        super().__init__(options, frontend)
        wanted = self.backbone.config.num_mel_bins
        if frontend.feature_size != wanted:
            raise SasvError(
                f"the backbone needs {wanted} bands, not {frontend.feature_size}; set mels of the "
                "front-end"
            )

    def part_of(self, model: Any) -> Any:
        """Return the encoder of Whisper; its decoder is not used."""
        return model.encoder

    def hidden_states(
        self, features: Tensor, mask: Tensor | None
    ) -> tuple[list[Tensor], Tensor | None]:
        backbone = self.backbone
        most = 2 * backbone.config.max_source_positions
        mask = None if mask is None else mask[..., :most]
        x, mask = convolve(backbone.conv1, features[..., :most], mask)
        x, mask = convolve(backbone.conv2, F.gelu(x), mask)
        x = F.gelu(x).transpose(1, 2)
        x = x + backbone.embed_positions.weight[: x.shape[1]]
        x = F.dropout(x, backbone.dropout, self.training)
        allowed = None
        if mask is not None:
            frames = x.shape[1]
            allowed = torch.zeros(mask.shape, dtype=x.dtype, device=x.device)
            allowed = allowed.masked_fill(~mask, torch.finfo(x.dtype).min)[:, None].expand(
                -1, 1, frames, -1
            )
        hidden = [x]
        for layer in backbone.layers:
            x = layer(x, attention_mask=allowed)
            x = x[0] if isinstance(x, tuple) else x
            hidden.append(x)
        hidden[-1] = backbone.layer_norm(x)
        return hidden, mask
