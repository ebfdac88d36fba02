"""UnivNet (Jang et al., Interspeech 2021) through transformers, from a local folder."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from sasv.vocoders.neural import Mel, NeuralVocoder, from_transformers


class UnivNet(NeuralVocoder):
    """UnivNet-c32 and related models; ``weights`` is a folder as saved by transformers
    (config.json, model.safetensors).
    """

    rate = 24000
    mel = "100 Slaney bands to 12 kHz, 1024/256 at 24 kHz, natural log"
    licence = "BSD-3-Clause (weights by maum.ai); Apache-2.0 (transformers)"
    source = "huggingface.co/dg845/univnet-dev"

    def __init__(self, weights: str = "", device: str = "cpu") -> None:
        super().__init__(weights, device)
        self.network = from_transformers("UnivNetModel", weights, device)
        self.features = Mel(
            self.rate, 1024, 1024, self.hop, self.network.config.num_mel_bins, 0.0, 12000.0
        )

    def generate(self, waves: Tensor, seeds: Sequence[int], prepared: Sequence[Any]) -> Tensor:
        mel = self.features(waves).transpose(1, 2)
        noise = self.noise((mel.shape[1], self.network.config.model_in_channels), seeds)
        return self.network(input_features=mel, noise_sequence=noise).waveforms
