"""BigVGAN (Lee et al., ICLR 2023) v1 and v2 through the package bigvgan, from a local folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn.utils import remove_weight_norm

from sasv.core.errors import MissingExtra
from sasv.vocoders.hifi_gan import SETTINGS, mel_of
from sasv.vocoders.neural import NeuralVocoder, load_into, read_settings, read_weights


class BigVgan(NeuralVocoder):
    """BigVGAN; ``weights`` is ``bigvgan_generator.pt``, with its config.json in the same folder."""

    mel = "100 Slaney bands to 12 kHz, 1024/256 at 24 kHz, natural log (by its config.json)"
    licence = "MIT (code and weights)"
    source = "huggingface.co/nvidia/bigvgan_v2_24khz_100band_256x"

    def __init__(self, weights: str = "", device: str = "cpu") -> None:
        super().__init__(weights, device)
        try:
            from bigvgan.bigvgan import BigVGAN
            from bigvgan.env import AttrDict
        except ImportError as error:
            raise MissingExtra("bigvgan", "bigvgan", "the vocoder bigvgan") from error
        config = Path(weights).parent / "config.json"
        settings = read_settings(config, [*SETTINGS, "activation", "snake_logscale"])
        self.rate, self.hop, self.features = (
            settings["sampling_rate"],
            settings["hop_size"],
            mel_of(settings, config),
        )
        network = BigVGAN(AttrDict(settings))
        for module in network.modules():
            if hasattr(module, "weight_g"):
                remove_weight_norm(module)
        self.generator = load_into(network, read_weights(weights), weights, device)

    def generate(self, waves: Tensor, seeds: Sequence[int], prepared: Sequence[Any]) -> Tensor:
        return self.generator(self.features(waves))[:, 0]
