"""WORLD (Morise et al. 2016): F0, spectral envelope and aperiodicity, resynthesised."""

import numpy as np

from sasv.core.errors import MissingExtra
from sasv.vocoders.base import Vocoder


class World(Vocoder):
    """WORLD through pyworld-prebuilt; needs no weights."""

    licence = "BSD-3-Clause"

    def __init__(self, weights: str = "", device: str = "cpu") -> None:
        super().__init__(weights, device)
        try:
            import pyworld
        except ImportError as error:
            raise MissingExtra("pyworld-prebuilt", "vocoders", "the vocoder world") from error
        self.pyworld = pyworld

    def resynthesise(self, wave: np.ndarray, seed: int) -> np.ndarray:
        parameters = self.pyworld.wav2world(wave.astype(np.float64), self.rate)
        return self.pyworld.synthesize(*parameters, self.rate)
