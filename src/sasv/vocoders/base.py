"""The base class of vocoders."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import soxr

from sasv.audio import RATE

PIECE_SECONDS = 60.0
OVERLAP_SECONDS = 0.25
"""Longer recordings are copied in pieces, so that the memory of an hour is that of a minute."""


class Vocoder:
    """Analyses and resynthesises speech.

    Args:
        weights: file or folder of weights, for those that need them.
        device: where a neural vocoder computes.

    Attributes:
        rate: samples per second it works at (that of its weights, once they are loaded).
        mel: the acoustic features it starts from, in words.
        licence: of the code and, if it has them, the weights.
        source: where its weights come from; "" if it needs none.
        needs_weights: whether ``weights`` must be given.
        neural: whether it is a network, which a GPU makes faster.
        condition: a transmission condition: bona fide speech stays bona fide.
    """

    rate: int = RATE
    mel: ClassVar[str] = "none"
    licence: ClassVar[str] = "Apache-2.0 (ours)"
    source: ClassVar[str] = ""
    needs_weights: ClassVar[bool] = False
    neural: ClassVar[bool] = False
    condition: ClassVar[bool] = False

    def __init__(self, weights: str = "", device: str = "cpu") -> None:
        self.weights = weights
        self.device = device

    def resynthesise(self, wave: np.ndarray, seed: int) -> np.ndarray:
        """Return the copy of float32 mono speech at ``rate``, about as long."""
        raise NotImplementedError

    def __call__(self, wave: np.ndarray, rate: int = RATE, seed: int = 0) -> np.ndarray:
        """Return a copy at the same rate, of the same length and level, without clipping.

        Args:
            wave: float32 mono speech, (samples,).
            rate: samples per second.
            seed: of whatever the vocoder draws.
        """
        return self.many([wave], rate, [seed])[0]

    def many(
        self, waves: Sequence[np.ndarray], rate: int, seeds: Sequence[int]
    ) -> list[np.ndarray]:
        """Return the copies of several utterances, as each alone would be; batched if the
        vocoder can.
        """
        own = [resampled(wave, rate, self.rate) for wave in waves]
        copies = self.resynthesise_many(own, seeds)
        return [
            self.fitted(wave, resampled(copy, self.rate, rate)) for wave, copy in zip(waves, copies)
        ]

    def resynthesise_many(
        self, waves: Sequence[np.ndarray], seeds: Sequence[int]
    ) -> list[np.ndarray]:
        """Return the raw copies of several utterances at ``rate``; a long one is done in pieces
        that are cross-faded.
        """
        return [self._in_pieces(wave, seed) for wave, seed in zip(waves, seeds)]

    def _in_pieces(self, wave: np.ndarray, seed: int) -> np.ndarray:
        size = int(PIECE_SECONDS * self.rate)
        over = int(OVERLAP_SECONDS * self.rate)
        if len(wave) <= size + over:
            return self.resynthesise(wave, seed)
        whole = np.zeros(len(wave), np.float32)
        rising = np.linspace(0, 1, over, dtype=np.float32)
        for start in range(0, len(wave), size):
            piece = wave[start : start + size + over]
            copy = np.asarray(self.resynthesise(piece, seed + start), np.float32)
            copy = np.pad(copy[: len(piece)], (0, max(0, len(piece) - len(copy))))
            if start:
                copy[:over] *= rising[: len(copy)]
            if start + len(piece) < len(wave):
                copy[-over:] *= rising[::-1]
            whole[start : start + len(copy)] += copy
        return whole

    def fitted(self, wave: np.ndarray, copy: np.ndarray) -> np.ndarray:
        """Give a copy the length and level of its original; nothing clips."""
        copy = np.nan_to_num(
            np.pad(copy[: len(wave)], (0, max(0, len(wave) - len(copy)))).astype(np.float64)
        )
        level = np.sqrt(np.square(wave, dtype=np.float64).mean())
        found = np.sqrt(np.square(copy).mean())
        if found > 0 and not self.condition:
            copy *= level / found
        peak = np.abs(copy).max(initial=0.0)
        return (copy / max(1.0, peak / 0.999)).astype(np.float32)


def resampled(wave: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Return float32 speech at another rate."""
    wave = np.asarray(wave, np.float32)
    return wave if rate == wanted else soxr.resample(wave, rate, wanted)
