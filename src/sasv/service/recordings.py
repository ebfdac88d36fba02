"""Turns the bytes of a request into the input of a verifier, with limits on time and memory."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from sasv.audio import AUTO, AudioInfo, check_speech, read_audio
from sasv.core.errors import AudioError, MissingExtra
from sasv.decision import Recording, SpeechLimits
from sasv.runtime.embedder import Embedder
from sasv.runtime.windows import WINDOW_SECONDS, Windows
from sasv.service.problems import Problem

NAME = "recording"
"""Name of the audio of a request in messages."""

HIGHEST_RATE = 192_000
MOST_CHANNELS = 8


@contextmanager
def readable(data: bytes) -> Iterator[str]:
    """Provide a path for bytes while they are read. On Linux, they stay in memory."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("sasv")
        try:
            with open(descriptor, "wb", closefd=False) as stream:
                stream.write(data)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "audio")
        with open(path, "wb") as stream:
            stream.write(data)
        yield path


def decoded(data: bytes, rate: int, max_seconds: float) -> np.ndarray:
    """Return the samples of an audio file of any format, float32 (samples,).

    Args:
        data: the bytes of the file.
        rate: sample rate of the result in Hz.
        max_seconds: maximum length of a recording.

    Raises:
        Problem: the bytes are not audio, the format is not supported, or the recording is damaged
            or too long.
    """
    if not data:
        raise Problem(422, "unreadable_audio", "the body is empty; send the bytes of an audio file")

    def check(info: AudioInfo) -> None:
        if info.rate > HIGHEST_RATE or info.channels > MOST_CHANNELS:
            raise Problem(
                422,
                "unreadable_audio",
                f"the recording has {info.channels} channels at {info.rate} Hz; at most "
                f"{MOST_CHANNELS} channels and {HIGHEST_RATE} Hz are supported",
            )
        if info.seconds > max_seconds:
            raise _too_long(max_seconds)

    with readable(data) as path:
        try:
            # One second more than allowed is read, so that exactly the longer recordings are
            # refused, whatever the header says.
            samples = round((max_seconds + 1) * rate)
            wave = read_audio(path, samples=samples, rate=rate, channel=AUTO, check=check)
        except MissingExtra as error:
            raise Problem(415, "unsupported_format", _text(error, path)) from error
        except AudioError as error:
            raise Problem(422, "unreadable_audio", _text(error, path)) from error
    if len(wave) > max_seconds * rate:
        raise _too_long(max_seconds)
    return wave


def measured(wave: np.ndarray, embedder: Embedder, limits: SpeechLimits) -> Recording:
    """Return the input of a verifier. A recording that is silent, or too short for the model,
    counts as one without speech.
    """
    specification = embedder.specification
    rate = specification.sample_rate
    try:
        check_speech(wave, NAME, specification.min_samples, rate)
    except AudioError:
        return Recording(NAME, None, len(wave) / rate, 0.0, 0.0)
    if len(wave) > embedder.extraction.max_seconds * rate:
        windows = Windows(embedder, limits, WINDOW_SECONDS)
        windows.feed(wave, NAME)
        return windows.recording(NAME)
    return embedder.measured(wave, limits, NAME)


def _too_long(max_seconds: float) -> Problem:
    return Problem(413, "too_long", f"the recording is longer than {max_seconds:g} s, the maximum")


def _text(error: Exception, path: str) -> str:
    return str(error).removeprefix(f"{path}: ").replace(path, NAME)
