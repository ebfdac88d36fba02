"""Reduces a recording with several channels to one waveform."""

import logging
from collections.abc import Callable, Iterator

import numpy as np

from sasv.audio.source import AudioInfo
from sasv.core.errors import AudioError, SasvError

logger = logging.getLogger("sasv")

AUTO = "auto"
MEAN = "mean"
LOUDEST = "loudest"

LOST_POWER = 0.3
"""If the mean of the channels has less than this share of the power of the loudest channel, the
channels cancel or most are silent. (The mean of speech and one silent channel has a quarter.)"""

_said: list[str] = []


def is_channel(channel: str) -> bool:
    """Whether a text names a channel: auto, mean, loudest, or a number counted from 0."""
    return channel in (AUTO, MEAN, LOUDEST) or (
        channel.isdecimal() and channel.isascii() and len(channel) < 4
    )


def check_channel(channel: str) -> str:
    """Return the channel unchanged if it is valid.

    Raises:
        SasvError: the text is not auto, mean, loudest, or a number counted from 0.
    """
    if is_channel(channel):
        return channel
    raise SasvError(
        f"channel '{channel}': use {AUTO}, {MEAN}, {LOUDEST}, or a channel number counted from 0"
    )


def one_channel(
    name: str, info: AudioInfo, channel: str, read: Callable[[], Iterator[np.ndarray]]
) -> Iterator[np.ndarray]:
    """Yield blocks (samples,) of one channel or of the mean of all channels. The file is read a
    second time only if the loudest channel is needed.

    Args:
        name: the file, for messages.
        info: sample rate and channels of the file.
        channel: ``auto`` (the mean, or the loudest channel if the mean has lost most of its
            power), ``mean``, ``loudest``, or a number counted from 0.
        read: starts reading blocks (samples, channels) from the beginning.

    Raises:
        AudioError: the file has no such channel.
    """
    check_channel(channel)
    if channel.isdecimal():
        number = int(channel)
        if number >= info.channels:
            raise AudioError(
                f"{name}: there is no channel {number}; the recording has {info.channels} "
                "channels, counted from 0"
            )
        for block in read():
            yield block[:, number]
    elif info.channels == 1:
        for block in read():
            yield block[:, 0]
    elif channel == MEAN:
        for block in read():
            yield block.mean(axis=1)
    else:
        yield from _mean_or_loudest(name, info, channel, read)


def _mean_or_loudest(
    name: str, info: AudioInfo, channel: str, read: Callable[[], Iterator[np.ndarray]]
) -> Iterator[np.ndarray]:
    powers = np.zeros(info.channels)
    mean_power = 0.0
    means = []
    for block in read():
        powers += np.einsum("sc,sc->c", block, block, dtype=np.float64)
        if channel == AUTO:
            mean = block.mean(axis=1)
            mean_power += float(np.dot(mean, mean))
            means.append(mean)
    loudest = int(np.argmax(powers))
    if (
        channel == AUTO and not mean_power < LOST_POWER * powers[loudest]
    ):  # "not": NaN is refused later
        yield from means
        return
    if channel == AUTO and not _said:
        _said.append(name)
        logger.info(
            f"{name}: its {info.channels} channels cancel each other in the mean, so the loudest "
            f"channel ({loudest}) is used, here and in other such files; --channel selects another"
        )
    for block in read():
        yield block[:, loudest]
