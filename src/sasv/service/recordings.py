"""From the bytes of a request to what a verifier takes, with bounds on time and memory."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from sasv.audio import AUTO, check_speech, probe, read_audio
from sasv.core.errors import AudioError, MissingExtra
from sasv.decision import Recording, SpeechLimits
from sasv.runtime.embedder import Embedder
from sasv.runtime.windows import WINDOW_SECONDS, Windows
from sasv.service.problems import Problem

NAME = "recording"
"""What messages call the audio of a request."""

HIGHEST_RATE = 192_000
MOST_CHANNELS = 8


@contextmanager
def readable(data: bytes) -> Iterator[str]:
    """Give bytes a path for as long as they are read; on Linux they stay in memory."""
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
        rate: samples per second of the result.
        max_seconds: longest recording.

    Raises:
        Problem: it is no audio, of a format that is not read, broken, or too long.
    """
    if not data:
        raise Problem(422, "unreadable_audio", "the body is empty; send the bytes of an audio file")
    with readable(data) as path:
        try:
            info = probe(path)
            if info.rate > HIGHEST_RATE or info.channels > MOST_CHANNELS:
                raise Problem(
                    422,
                    "unreadable_audio",
                    f"{info.channels} channels at {info.rate} Hz; at most {MOST_CHANNELS} channels "
                    f"and {HIGHEST_RATE} Hz are read",
                )
            if info.seconds > max_seconds:
                raise _too_long(max_seconds)
            # A second more than allowed, so that only what is longer is refused, whatever the
            # header says.
            wave = read_audio(
                path, samples=round((max_seconds + 1) * rate), rate=rate, channel=AUTO
            )
        except MissingExtra as error:
            raise Problem(415, "unsupported_format", _text(error, path)) from error
        except AudioError as error:
            raise Problem(422, "unreadable_audio", _text(error, path)) from error
    if len(wave) > max_seconds * rate:
        raise _too_long(max_seconds)
    return wave


def measured(wave: np.ndarray, embedder: Embedder, limits: SpeechLimits) -> Recording:
    """Return what a verifier takes; a recording that is silent, or shorter than the model embeds,
    holds no speech.
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
    return Problem(413, "too_long", f"longer than the {max_seconds:g} s that are read")


def _text(error: Exception, path: str) -> str:
    return str(error).removeprefix(f"{path}: ").replace(path, NAME)
