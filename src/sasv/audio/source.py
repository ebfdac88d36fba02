"""The interface of readers of audio files, and what they know about the length of a file."""

import enum
import os
import stat
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


def native_path(name: str) -> str | bytes:
    """Return the path as the system wants it: bytes on POSIX, so that a name need not be valid
    UTF-8.
    """
    if os.name != "posix":
        return name
    try:
        return os.fsencode(name)
    except UnicodeEncodeError:  # LC_ALL=C with a name from a UTF-8 table
        return name.encode("utf-8", "surrogateescape")


def checked_size(name: str) -> os.stat_result:
    """Return the status of a regular file that is not empty. AudioError says what else it is."""
    try:
        status = os.stat(native_path(name))  # noqa: PTH116 (a path of bytes)
    except FileNotFoundError as error:
        raise AudioError(f"{name}: no such file; check the path") from error
    except NotADirectoryError as error:
        raise AudioError(
            f"{name}: no such file (a part of the path is a file); check the path"
        ) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise AudioError(f"{name}: cannot be opened: {reason}; check the path") from error
    if stat.S_ISDIR(status.st_mode):
        raise AudioError(f"{name}: a folder, not an audio file")
    if not stat.S_ISREG(status.st_mode):
        raise AudioError(
            f"{name}: not a regular file (a pipe or a device); write the audio to a file first"
        )
    if status.st_size == 0:
        raise AudioError(f"{name}: empty file (0 bytes); fetch or convert it again")
    return status


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
