"""The interface of audio readers, and the properties of audio files that they report."""

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sasv.core.errors import AudioError

BLOCK_VALUES = 1 << 20
"""Number of values (samples times channels) that are decoded at once, so that the memory depends on
the actual audio and not on what a header states.
"""

LOWEST_RATE = 1000
HIGHEST_RATE = 768_000
"""Allowed sample rates of a file in Hz."""

MOST_CHANNELS = 256

SAMPLES_PER_BYTE = 8192
"""A header that states more samples than this per byte of the file must be wrong (FLAC of silence
reaches 5,500).
"""


class Length(enum.Enum):
    """How reliable the length in a header is. A shorter file counts as truncated only if the length
    is exact.
    """

    EXACT = "exact"
    ESTIMATED = "estimated"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class AudioInfo:
    """Properties of an audio file.

    Attributes:
        rate: sample rate in Hz.
        channels: number of channels.
        samples: samples per channel; 0 if the header does not state them (see ``length``).
        length: how reliable ``samples`` is.
    """

    rate: int
    channels: int
    samples: int
    length: Length = Length.EXACT

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.samples / self.rate


class Source(Protocol):
    """An open audio file."""

    info: AudioInfo

    def blocks(self, first: int, count: int | None) -> Iterator[np.ndarray]:
        """Yield float32 blocks (samples, channels) from sample ``first`` on: ``count`` samples in
        total, or all up to the end if ``count`` is None.
        """

    def close(self) -> None:
        """Close the file."""


def check_format(name: str, rate: int, channels: int) -> None:
    """Raise AudioError if a sample rate or number of channels is impossible for a recording."""
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise AudioError(
            f"{name}: the header says {rate} Hz, which is not a possible sample rate "
            f"({LOWEST_RATE} to {HIGHEST_RATE} Hz); convert it again"
        )
    if not 1 <= channels <= MOST_CHANNELS:
        raise AudioError(f"{name}: the header says {channels} channels; convert it again")


def truncated(name: str, promised: int, present: int, rate: int) -> AudioError:
    """Return the error for a file that ends earlier than its header states."""
    return AudioError(
        f"{name}: truncated: the header promises {promised / rate:.2f} s, but {present / rate:.2f} "
        "s are there; download or convert it again"
    )
