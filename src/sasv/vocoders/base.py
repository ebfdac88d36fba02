"""The base class of vocoders."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import soxr

from sasv.audio import RATE

PIECE_SECONDS = 60.0
OVERLAP_SECONDS = 0.25
"""Longer recordings (in seconds) are copied in pieces of this length, to limit the memory."""


class Vocoder:
    """Analyses and resynthesises speech.

    Args:
        weights: file or folder with the weights, for vocoders that need them.
        device: device on which a neural vocoder computes.

    Attributes:
        rate: sample rate in Hz at which the vocoder works (that of its weights, once loaded).
        mel: description of its acoustic features.
        licence: licence of the code and, if there are any, of the weights.
        source: origin of its weights; "" if it needs none.
        needs_weights: whether ``weights`` must be given.
        neural: whether it is a network, which is faster on a GPU.
        condition: whether it is a transmission condition, after which bona fide speech remains bona
            fide.
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
        """Return a copy of float32 mono speech, (samples,), at ``rate``. Its length may differ
        slightly.
        """
        raise NotImplementedError

    def __call__(self, wave: np.ndarray, rate: int = RATE, seed: int = 0) -> np.ndarray:
        """Return a copy with the same sample rate, length, and level, without clipping.

        Args:
            wave: float32 mono speech, (samples,).
            rate: sample rate in Hz.
            seed: seed of the random numbers of the vocoder.
        """
        return self.many([wave], rate, [seed])[0]

    def many(
        self, waves: Sequence[np.ndarray], rate: int, seeds: Sequence[int]
    ) -> list[np.ndarray]:
        """Return copies of several utterances, (samples,) each, which equal those of each utterance
        alone. They are computed in batches if the vocoder supports it.
        """
        own = [resampled(wave, rate, self.rate) for wave in waves]
        copies = self.resynthesise_many(own, seeds)
        return [
            self.fitted(wave, resampled(copy, self.rate, rate)) for wave, copy in zip(waves, copies)
        ]

    def resynthesise_many(
        self, waves: Sequence[np.ndarray], seeds: Sequence[int]
    ) -> list[np.ndarray]:
        """Return the raw copies of several utterances at ``rate``. A long utterance is copied in
        pieces that are cross-faded.
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
        """Return a copy with the length and level of its original, without clipping."""
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
    """Return float32 speech, (samples,), resampled from ``rate`` to ``wanted`` Hz."""
    wave = np.asarray(wave, np.float32)
    return wave if rate == wanted else soxr.resample(wave, rate, wanted)
