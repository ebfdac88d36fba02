"""What every vocoder is."""

from typing import ClassVar

import numpy as np


class Vocoder:
    """Analyses and resynthesises speech.

    Attributes:
        rate: samples per second it works at.
        licence: of the code and, where it has them, the weights.
        weights: where its weights come from; "" where it needs none.
    """

    rate: ClassVar[int] = 16000
    licence: ClassVar[str] = ""
    weights: ClassVar[str] = ""

    def resynthesise(self, wave: np.ndarray, seed: int) -> np.ndarray:
        """Return the copy of float32 mono speech at ``rate``, about as long."""
        raise NotImplementedError

    def __call__(self, wave: np.ndarray, seed: int = 0) -> np.ndarray:
        """Return a copy of the same length and level, without clipping.

        Args:
            wave: float32 mono speech at ``rate``, (samples,).
            seed: of whatever the vocoder draws.
        """
        copy = np.asarray(self.resynthesise(wave, seed), np.float64)
        copy = np.nan_to_num(np.pad(copy[: len(wave)], (0, max(0, len(wave) - len(copy)))))
        level, found = np.sqrt(np.square(wave, dtype=np.float64).mean()), np.sqrt(np.square(copy).mean())
        if found > 0:
            copy *= level / found
        peak = np.abs(copy).max(initial=0.0)
        return (copy / max(1.0, peak / 0.999)).astype(np.float32)
