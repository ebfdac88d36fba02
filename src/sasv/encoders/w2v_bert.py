"""Encoders with the backbone w2v-BERT 2.0 (Barrault et al. 2023), each of whose frames is a pair of
normalised filter-bank frames.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from sasv.core.errors import SasvError
from sasv.encoders.selfsupervised import BackboneEncoder, BackboneOptions, LayerOutputs
from sasv.frontends.base import Frontend

STRIDE = 2
"""Number of front-end frames per frame of the backbone."""
TINY = {
    "model_type": "wav2vec2-bert",
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "add_adapter": False,
}
"""Configuration of a small backbone with random weights, for experiments."""


class W2vBert(BackboneEncoder):
    """Pairs of filter-bank frames, a Conformer, and a head over the outputs of its layers."""

    name = "w2v-bert"
    model_types = ("wav2vec2-bert",)
    presets = {
        "published": {"head": "adapter-mfa", "embedding": 256},
        "tiny": {"config": TINY, "head": "adapter-mfa", "adapter": 32},
        "test": {"config": TINY, "head": "adapter-mfa", "adapter": 8, "embedding": 24},
    }
    default_frontend = "kaldi"
    default_frontend_options = {"scale": 32768.0, "normalise_variance": True}

    def __init__(self, options: BackboneOptions, frontend: Frontend) -> None:
        super().__init__(options, frontend)
        wanted = self.backbone.config.feature_projection_input_dim
        if frontend.feature_size * STRIDE != wanted:
            raise SasvError(
                f"the backbone needs pairs of {wanted // STRIDE} bands, not of "
                f"{frontend.feature_size}"
            )

    def adapted_layers(self, model_type: str) -> tuple[str, ...]:
        """Return the names of the linear layers that ``lora`` adapts: the query and value
        projections.
        """
        return ("linear_q", "linear_v")

    def hidden_states(
        self, features: Tensor, mask: Tensor | None
    ) -> tuple[list[Tensor], Tensor | None]:
        # As in the original, the last frame of an odd number is paired with zeros. The pair is
        # pooled, but no other frame attends to it.
        frames = features.shape[2]
        odd = frames % STRIDE
        pairs = F.pad(features, (0, odd)).transpose(1, 2).unflatten(1, (-1, STRIDE)).flatten(2)
        if mask is None:
            mask = torch.ones(
                features.shape[0], 1, frames, dtype=torch.bool, device=features.device
            )
        halves = F.pad(mask, (0, odd)).unflatten(2, (-1, STRIDE))
        projected = self.backbone.feature_projection(pairs)
        projected = projected[0] if isinstance(projected, tuple) else projected
        with LayerOutputs(self.layers()) as hidden:
            output = self.backbone.encoder(projected, attention_mask=halves[:, 0, :, -1])
        return [*hidden[:-1], output.last_hidden_state], halves[..., 0]
