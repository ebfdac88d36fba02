"""The interface of readers of audio files, and what they know about the length of a file."""

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sasv.core.errors import AudioError

BLOCK_VALUES = 1 << 20
"""Values (samples times channels) that are decoded at once: memory follows what is there, not what
a header says.
"""

LOWEST_RATE = 1000
HIGHEST_RATE = 768_000
"""Samples per second that a file may have."""

MOST_CHANNELS = 256

SAMPLES_PER_BYTE = 8192
"""A header that promises more samples than this for each byte of its file cannot be right (FLAC of
silence: 5,500).
"""


class Length(enum.Enum):
    """How far the length in a header can be believed. Only an exact one makes a shorter file
    "truncated".
    """

    EXACT = "exact"
    ESTIMATED = "estimated"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class AudioInfo:
    """What a file holds.

    Attributes:
        rate: samples per second.
        channels: number of channels.
        samples: samples per channel; 0 if the header does not say (see ``length``).
        length: how far ``samples`` can be believed.
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
        """Yield float32 blocks (samples, channels) from sample ``first`` on, ``count`` in all or up
        to the end.
        """

    def close(self) -> None:
        """Close the file."""


def check_format(name: str, rate: int, channels: int) -> None:
    """AudioError for a rate or a number of channels that no recording has."""
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise AudioError(
            f"{name}: the header says {rate} Hz, which is not a rate of a recording ({LOWEST_RATE} "
            f"to {HIGHEST_RATE} Hz); convert it again"
        )
    if not 1 <= channels <= MOST_CHANNELS:
        raise AudioError(f"{name}: the header says {channels} channels; convert it again")


def truncated(name: str, promised: int, present: int, rate: int) -> AudioError:
    """Return the error for a file that ends before its header says."""
    return AudioError(
        f"{name}: truncated: the header promises {promised / rate:.2f} s, {present / rate:.2f} s "
        "are there; fetch or convert it again"
    )
