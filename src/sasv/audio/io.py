"""Reads and writes audio files. Every failure is an AudioError that names the file.

The reader is chosen by the content of a file. libsndfile reads the formats that it knows; PyAV
(``sasv[m4a]``) reads all others, and files whose length libsndfile cannot determine.
"""

import io
import math
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
import soxr

from sasv.audio import ffmpeg
from sasv.audio.channels import AUTO, one_channel
from sasv.audio.formats import MAGIC_BYTES, pyav_container
from sasv.audio.sndfile import open_sndfile
from sasv.audio.source import AudioInfo, Length, Source
from sasv.core.errors import AudioError, MissingExtra, SasvError
from sasv.core.files import write_bytes
from sasv.storage import Resource, locate

RATE = 16000
"""The sample rate in Hz to which audio is converted by default."""

WRITTEN = {".flac": "FLAC", ".wav": "WAV", ".ogg": "OGG"}

SILENCE_PEAK = 1e-4
"""A waveform whose peak is below this (-80 dBFS) counts as silent."""

LARGEST_SAMPLE = 1000.0
"""Float files may exceed full scale (1.0), but not by 60 dB: such values are broken or on another
scale.
"""

MARGIN_SECONDS = 0.05
"""Extra audio read around a crop, so that resampling the crop equals resampling the whole file."""

LONGEST_SECONDS = 4 * 3600.0
"""Longest audio, in seconds, that is ever read into memory at once."""

WHOLE_SECONDS = 600.0
"""Longer audio (in seconds) is resampled piece by piece, to limit the memory to that of the
result.
"""


def probe(path: str | os.PathLike[str]) -> AudioInfo:
    """Read the header only. If ``length`` of the result is not exact, ``samples`` may be wrong; use
    ``measure`` to count them.

    Raises:
        AudioError: the file is missing, empty or not audio.
    """
    with closing(_open(locate(os.fspath(path)))) as source:
        return source.info


def measure(path: str | os.PathLike[str]) -> AudioInfo:
    """Return the sample rate, channels, and true length of a file: from the header if that is
    exact, otherwise by decoding the file once.

    Raises:
        AudioError: the file is missing, empty, damaged, or unreadable.
    """
    resource = locate(os.fspath(path))
    with closing(_open(resource)) as source:
        if source.info.length is Length.EXACT:
            return source.info
        return replace(source.info, samples=ffmpeg.counted_samples(resource))


def read_audio(
    path: str | os.PathLike[str],
    start: int = 0,
    samples: int | None = None,
    rate: int = RATE,
    max_seconds: float | None = None,
    place: float | None = None,
    channel: str = AUTO,
    check: Callable[[AudioInfo], None] | None = None,
) -> np.ndarray:
    """Read a file, or a part of it, as mono float32 in [-1, 1].

    Args:
        path: a file, a member of a tar, or an address (see sasv.storage.locations): WAV, FLAC, OGG
            (Vorbis, Opus), MP3, SPHERE, AIFF and others; with ``sasv[m4a]`` also M4A, AAC, WebM,
            AMR, 3GP, WMA and others. The content decides, not the suffix.
        start: first sample to read, counted at ``rate``.
        samples: number of samples to read, counted at ``rate``; None reads to the end. Fewer are
            returned if the file ends earlier.
        rate: sample rate of the result in Hz; a file with another rate is resampled (soxr, HQ).
        max_seconds: longest request in seconds; a longer one is an error. The limit is never above
            ``LONGEST_SECONDS``.
        place: position of a crop as a share in [0, 1) of the possible starts, instead of ``start``.
        channel: ``auto`` (the mean of all channels, or the loudest if they cancel or are
            silent), ``mean``, ``loudest``, or a number counted from 0.
        check: is given what ``probe`` returns, before anything is decoded; what it raises is passed
            on.

    Returns:
        Array of shape (samples,). Only the requested part is decoded if the file is seekable.

    Raises:
        AudioError: the file is missing, empty, unreadable, truncated or too long, or a sample is
            not finite.
    """
    name = os.fspath(path)
    resource = locate(name)
    with closing(_open(resource)) as source:
        info = source.info
        if check is not None:
            check(info)
        total = info.samples if info.length is Length.EXACT else None
        if total is None and place is not None:
            total = ffmpeg.counted_samples(resource)
        available = None if total is None else -(-total * rate // info.rate)
        if place is not None and samples is not None and available is not None:
            start = int(place * max(1, available - samples + 1))
        if start < 0 or (available is not None and start >= available):
            raise _beyond(name, start, available, rate)
        stop = available if samples is None else start + samples
        if stop is not None and available is not None:
            stop = min(stop, available)
        limit = LONGEST_SECONDS if max_seconds is None else min(max_seconds, LONGEST_SECONDS)
        if stop is not None and (stop - start) / rate > limit:
            raise _too_long(name, f"{(stop - start) / rate:.0f} s", limit)
        wave = _read_span(name, source, start, stop, total, rate, limit, channel)
    if not len(wave):
        raise _beyond(name, start, available, rate)
    return wave


def _read_span(
    name: str,
    source: Source,
    start: int,
    stop: int | None,
    total: int | None,
    rate: int,
    limit: float,
    channel: str,
) -> np.ndarray:
    """Read samples ``start`` to ``stop`` (None for the end) at ``rate``; ``total`` is the length at
    the native rate.
    """
    native = source.info.rate
    if native == rate:
        count = None if stop is None else stop - start
        return _joined(_checked(name, source, start, count, limit, channel))
    common = math.gcd(native, rate)
    up = rate // common
    down = native // common
    margin = math.ceil(MARGIN_SECONDS * native)
    # The first native sample is a multiple of `down`, so that it coincides with a resampled one.
    first = max(0, (start * down // up - margin) // down * down)
    last = None if stop is None else -(-stop * down // up) + margin
    if last is not None and total is not None:
        last = min(total, last)
    count = None if last is None else last - first
    blocks = _checked(name, source, first, count, limit, channel)
    offset = start - first * up // down
    if count is not None and count <= WHOLE_SECONDS * native:
        resampled = soxr.resample(_joined(blocks), native, rate)
    else:
        resampled = _joined(_resampled(blocks, native, rate))
    return np.ascontiguousarray(resampled[offset : None if stop is None else offset + stop - start])


def _checked(
    name: str, source: Source, first: int, count: int | None, limit: float, channel: str
) -> Iterator[np.ndarray]:
    """Yield blocks (samples,) at the native rate. Raise AudioError if a sample is not finite or the
    limit is exceeded.
    """
    rate = source.info.rate
    most = int((limit + 2 * MARGIN_SECONDS) * rate) + 1
    read = 0

    def blocks() -> Iterator[np.ndarray]:
        done = 0
        for block in source.blocks(first, count):
            done += len(block)
            if done > most:
                raise _too_long(name, f"more than {limit:.0f} s", limit)
            yield block

    for wave in one_channel(name, source.info, channel, blocks):
        yield _finite(name, wave, first + read, rate)
        read += len(wave)


def _resampled(blocks: Iterator[np.ndarray], native: int, rate: int) -> Iterator[np.ndarray]:
    """Resample the blocks of a long recording one by one."""
    stream = soxr.ResampleStream(native, rate, 1, dtype="float32")
    for block in blocks:
        yield stream.resample_chunk(np.ascontiguousarray(block, np.float32))
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def _joined(blocks: Iterator[np.ndarray]) -> np.ndarray:
    pieces = list(blocks)
    if len(pieces) == 1:
        return pieces[0]
    return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)


def _finite(name: str, wave: np.ndarray, start: int, rate: int) -> np.ndarray:
    """Return the waveform, which begins at sample ``start`` of the file. Raise AudioError with the
    position of a sample that is not finite or far too large.
    """
    if (
        wave.max(initial=0.0) <= LARGEST_SAMPLE and wave.min(initial=0.0) >= -LARGEST_SAMPLE
    ):  # comparisons with NaN are false
        return wave
    broken = ~(np.abs(wave) <= LARGEST_SAMPLE)
    at = int(np.argmax(broken))
    seconds = (start + at) / rate
    if np.isfinite(wave[at]):
        raise AudioError(
            f"{name}: sample of {wave[at]:.3g} at {seconds:.3f} s, but full scale is 1; write the "
            "file again"
        )
    raise AudioError(f"{name}: NaN or infinite sample at {seconds:.3f} s; write the file again")


def _beyond(name: str, start: int, available: int | None, rate: int) -> AudioError:
    if start <= 0 and not available:
        return AudioError(f"{name}: contains no audio (0 samples); record or convert it again")
    has = "" if available is None else f"; the file has {available} samples at {rate} Hz"
    return AudioError(f"{name}: there is no audio at sample {start}{has}")


def _too_long(name: str, length: str, limit: float) -> AudioError:
    return AudioError(
        f"{name}: {length} long, over the limit of {limit:.0f} s; cut the recording into "
        "utterances, or raise the limit with --max-seconds"
    )


def _open(resource: Resource) -> Source:
    """Open a file with libsndfile or, if that cannot read its content, with PyAV."""
    name = resource.name
    source, reason = open_sndfile(resource)
    if source is not None:
        return source
    head = resource.start(MAGIC_BYTES)
    if not ffmpeg.installed():
        container = pyav_container(head)
        if container:
            raise MissingExtra("PyAV", "m4a", f"{name}: reading {container}")
        raise AudioError(
            f"{name}: not an audio file that can be read ({reason}); convert it to WAV or FLAC, "
            "or install PyAV, which "
            'reads more: pip install "sasv[m4a]"'
        )
    return ffmpeg.FfmpegSource(resource)


def read_speech(
    path: str | os.PathLike[str],
    min_samples: int = 1,
    max_seconds: float | None = None,
    rate: int = RATE,
    channel: str = AUTO,
) -> np.ndarray:
    """Read a whole utterance and check that its embedding would be meaningful.

    Args:
        path: as in ``read_audio``.
        min_samples: fewest samples at ``rate``, for instance those that an encoder needs.
        max_seconds: longest recording in seconds.
        rate: sample rate of the result in Hz.
        channel: as in ``read_audio``.

    Returns:
        float32 array of shape (samples,), values in [-1, 1].

    Raises:
        AudioError: as in ``read_audio`` and ``check_speech``.
    """
    wave = read_audio(path, rate=rate, max_seconds=max_seconds, channel=channel)
    return check_speech(wave, os.fspath(path), min_samples, rate)


def check_speech(wave: np.ndarray, name: str, min_samples: int = 1, rate: int = RATE) -> np.ndarray:
    """Return a waveform unchanged if an embedding of it is meaningful.

    Args:
        wave: (samples,), values in [-1, 1].
        name: the recording, for messages.
        min_samples: fewest samples.
        rate: sample rate in Hz.

    Raises:
        AudioError: the waveform has another shape, is too short or silent, or contains a sample
            that is not finite.
    """
    if wave.ndim != 1:
        raise AudioError(
            f"{name}: expected one channel of shape (samples,), got shape {wave.shape}"
        )
    if len(wave) < min_samples:
        raise AudioError(
            f"{name}: too short: {len(wave)} samples ({1000 * len(wave) / rate:.1f} ms) at {rate} "
            f"Hz, at least {min_samples} ({1000 * min_samples / rate:.0f} ms) are needed; use a "
            "longer recording"
        )
    _finite(name, wave, 0, rate)
    if np.abs(wave).max(initial=0.0) < SILENCE_PEAK:
        raise AudioError(f"{name}: silent (no sample above -80 dBFS); record it again")
    return wave


def write_audio(path: str | os.PathLike[str], wave: np.ndarray, rate: int = RATE) -> None:
    """Write mono 16-bit audio atomically, in the format of the suffix (.flac, .wav, .ogg).

    Args:
        path: the file.
        wave: (samples,), values in [-1, 1].
        rate: sample rate in Hz.

    Raises:
        AudioError: the suffix is another one.
        SasvError: the file cannot be written.
    """
    kind = WRITTEN.get(Path(path).suffix.lower())
    if kind is None:
        raise SasvError(
            f"{path}: audio is written as {', '.join(WRITTEN)}; choose one of these suffixes"
        )
    stream = io.BytesIO()
    soundfile.write(stream, np.clip(wave, -1.0, 1.0), rate, format=kind)
    write_bytes(path, stream.getvalue())
