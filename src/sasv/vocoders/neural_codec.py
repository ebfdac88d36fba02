"""Base class of neural codecs from transformers, which encode and decode speech with all of their
codebooks.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from sasv.vocoders.neural import NeuralVocoder, from_transformers


class NeuralCodec(NeuralVocoder):
    """A codec model from transformers.

    Attributes:
        model: name of its class in transformers.
    """

    model: ClassVar[str] = ""
    context_seconds = 1.0  # some have a state that persists from frame to frame

    def __init__(self, weights: str = "", device: str = "cpu") -> None:
        super().__init__(weights, device)
        self.network = from_transformers(self.model, weights, device)
        config = self.network.config
        self.rate = config.sampling_rate
        self.hop = int(getattr(config, "hop_length", 0) or self.rate / config.frame_rate)
        bandwidths = getattr(config, "target_bandwidths", None)
        self.options = {"bandwidth": max(bandwidths)} if bandwidths else {}

    def generate(self, waves: Tensor, seeds: Sequence[int], prepared: Sequence[Any]) -> Tensor:
        return self.network(waves[:, None], **self.options).audio_values.reshape(len(waves), -1)[
            :, : waves.shape[1]
        ]
