"""Read and write audio files; every failure is an AudioError that names the file."""

import io
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from sasv.audio import m4a
from sasv.core.errors import AudioError, SasvError
from sasv.core.files import write_bytes

RATE = 16000
"""Samples per second inside sasv."""

WRITTEN = {".flac": "FLAC", ".wav": "WAV", ".ogg": "OGG"}

SILENCE_PEAK = 1e-4
"""A waveform whose peak stays below this (-80 dBFS) holds no speech."""

MARGIN_SECONDS = 0.05
"""Extra audio around a crop, so that resampling it alone equals resampling the whole file."""


@dataclass(frozen=True)
class AudioInfo:
    """What a header says: samples per second, channels, samples per channel."""

    rate: int
    channels: int
    frames: int

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.frames / self.rate


def probe(path: str | os.PathLike[str]) -> AudioInfo:
    """Read the header only. AudioError where the file is missing, empty or not audio."""
    name = os.fspath(path)
    if m4a.handles(name):
        _check_file(name)
        return AudioInfo(*m4a.probe(name))
    with _open(name) as file:
        return AudioInfo(file.samplerate, file.channels, file.frames)


def read_audio(
    path: str | os.PathLike[str],
    start: int = 0,
    frames: int | None = None,
    rate: int = RATE,
    max_seconds: float | None = None,
    place: float | None = None,
) -> np.ndarray:
    """Read a file, or a part of it, as mono float32 in [-1, 1].

    Args:
        path: WAV, FLAC, OGG (Vorbis, Opus), MP3, or M4A/AAC with ``sasv[m4a]``.
        start: first sample wanted, counted at ``rate``.
        frames: samples wanted, counted at ``rate``; None reads to the end. Near the end fewer come back.
        rate: samples per second of the result; any other rate in the file is resampled (soxr, HQ).
        max_seconds: refuse a longer request instead of filling the memory.
        place: where a crop of ``frames`` begins, as a share in [0, 1) of the possible starts, instead of ``start``.

    Returns:
        Array of shape (samples,). Only the part asked for is decoded.

    Raises:
        AudioError: missing, empty, unreadable, truncated or too long file, or NaN or infinite samples.
    """
    name = os.fspath(path)
    if m4a.handles(name):
        _check_file(name)
        native, _, total = m4a.probe(name)
        return _read_span(name, m4a.reader(name, native), native, total, start, frames, rate, max_seconds, place)
    with _open(name) as file:

        def read(first: int, count: int) -> np.ndarray:
            file.seek(first)
            data = file.read(count, dtype="float32", always_2d=True)
            if len(data) < count:
                raise AudioError(_truncated(name, file.frames, first + len(data), file.samplerate))
            return data

        try:
            return _read_span(name, read, file.samplerate, file.frames, start, frames, rate, max_seconds, place)
        except soundfile.SoundFileError as error:
            raise AudioError(
                f"{name}: broken or truncated audio ({_reason(error)}); fetch or convert it again"
            ) from error


def _read_span(
    name: str,
    read: Callable[[int, int], np.ndarray],
    native: int,
    total: int,
    start: int,
    frames: int | None,
    rate: int,
    max_seconds: float | None,
    place: float | None,
) -> np.ndarray:
    """Read [start, start + frames) at ``rate`` through ``read(first, count)`` at the native rate."""
    available = -(-total * rate // native)
    if place is not None and frames is not None:
        start = int(place * max(1, available - frames + 1))
    stop = available if frames is None else min(start + frames, available)
    if start < 0 or start >= available:
        raise AudioError(f"{name}: no audio at sample {start}; the file has {available} samples at {rate} Hz")
    if max_seconds is not None and (stop - start) / rate > max_seconds:
        raise AudioError(
            f"{name}: {(stop - start) / rate:.0f} s long, over the limit of {max_seconds:.0f} s; "
            "cut it into utterances, or raise the limit (--max-seconds)"
        )
    if native == rate:
        return _finite(name, _mono(read(start, stop - start)), start, rate)
    common = math.gcd(native, rate)
    up, down = rate // common, native // common
    margin = math.ceil(MARGIN_SECONDS * native)
    # The first native sample is a multiple of `down`, so that it falls on a sample of the result.
    first = max(0, (start * down // up - margin) // down * down)
    last = min(total, -(-stop * down // up) + margin)
    resampled = soxr.resample(_finite(name, _mono(read(first, last - first)), first, native), native, rate)
    offset = start - first * up // down
    return np.ascontiguousarray(resampled[offset : offset + stop - start])


def _finite(name: str, wave: np.ndarray, start: int, rate: int) -> np.ndarray:
    """Return the waveform that begins at sample ``start``; AudioError says where it is not finite."""
    if not np.isfinite(wave).all():
        seconds = (start + int(np.argmin(np.isfinite(wave)))) / rate
        raise AudioError(f"{name}: NaN or infinite sample at {seconds:.3f} s; write the file again")
    return wave


def _mono(data: np.ndarray) -> np.ndarray:
    """Average the channels of (samples, channels)."""
    return data[:, 0] if data.shape[1] == 1 else data.mean(axis=1)


def read_speech(
    path: str | os.PathLike[str], min_samples: int = 1, max_seconds: float | None = None, rate: int = RATE
) -> np.ndarray:
    """Read a whole utterance and check that an embedding of it would mean something (see check_speech)."""
    return check_speech(read_audio(path, rate=rate, max_seconds=max_seconds), os.fspath(path), min_samples, rate)


def check_speech(wave: np.ndarray, name: str, min_samples: int = 1, rate: int = RATE) -> np.ndarray:
    """Return the waveform, or raise AudioError where it is too short, silent or not finite."""
    if wave.ndim != 1:
        raise AudioError(f"{name}: expected one channel of shape (samples,), got shape {wave.shape}")
    if len(wave) < min_samples:
        raise AudioError(
            f"{name}: too short: {len(wave)} samples ({1000 * len(wave) / rate:.1f} ms) at {rate} Hz, "
            f"at least {min_samples} ({1000 * min_samples / rate:.0f} ms) are needed; use a longer recording"
        )
    if not np.isfinite(wave).all():
        raise AudioError(f"{name}: NaN or infinite samples; write the file again")
    if np.abs(wave).max() < SILENCE_PEAK:
        raise AudioError(f"{name}: silent (no sample above -80 dBFS); record it again")
    return wave


def write_audio(path: str | os.PathLike[str], wave: np.ndarray, rate: int = RATE) -> None:
    """Write mono 16-bit audio atomically, the format by the suffix (.flac, .wav, .ogg)."""
    kind = WRITTEN.get(Path(path).suffix.lower())
    if kind is None:
        raise SasvError(f"{path}: audio is written as {', '.join(WRITTEN)}; choose one of these suffixes")
    stream = io.BytesIO()
    soundfile.write(stream, np.clip(wave, -1.0, 1.0), rate, format=kind)
    write_bytes(path, stream.getvalue())


def _check_file(name: str) -> None:
    path = Path(name)
    if not path.exists():
        raise AudioError(f"{name}: no such file; check the path")
    if path.is_dir():
        raise AudioError(f"{name}: a folder, not an audio file")
    if path.stat().st_size == 0:
        raise AudioError(f"{name}: empty file (0 bytes); fetch or convert it again")


def _open(name: str) -> soundfile.SoundFile:
    """Open and check the header; truncated WAV and OGG files read without an error, so look for them here."""
    try:
        file = soundfile.SoundFile(name)
    except soundfile.SoundFileError as error:
        _check_file(name)
        raise AudioError(
            f"{name}: not an audio file that can be read ({_reason(error)}); convert it to WAV or FLAC"
        ) from error
    try:
        if file.frames <= 0:
            raise AudioError(f"{name}: holds no audio (0 samples); record or convert it again")
        if file.format in ("WAV", "WAVEX", "AIFF"):
            promised = re.search(r"data : (\d+) \(should be (\d+)\)", file.extra_info)
            # A header of 0xffffffff bytes comes from a stream of unknown length and is no fault.
            if promised and int(promised[2]) < int(promised[1]) < 0x7FFFFFFF:
                share = file.frames * int(promised[1]) // max(int(promised[2]), 1)
                raise AudioError(_truncated(name, share, file.frames, file.samplerate))
        if file.format == "OGG" and not _ogg_complete(name):
            raise AudioError(f"{name}: truncated: the OGG stream has no end; fetch or convert it again")
    except BaseException:
        file.close()
        raise
    return file


def _reason(error: soundfile.SoundFileError) -> str:
    """What libsndfile says, without the path that stands in the message anyway."""
    return str(getattr(error, "error_string", error)).removeprefix("Error : ").strip(". ") or "broken"


def _ogg_complete(name: str) -> bool:
    """Whether the last OGG page says that it is the last (its pages are at most 65,307 bytes long)."""
    with open(name, "rb") as stream:
        stream.seek(max(0, Path(name).stat().st_size - 65307))
        tail = stream.read()
    page = tail.rfind(b"OggS\0")
    return page >= 0 and page + 5 < len(tail) and bool(tail[page + 5] & 4)


def _truncated(name: str, promised: int, present: int, rate: int) -> str:
    return (
        f"{name}: truncated: the header promises {promised / rate:.2f} s, "
        f"{present / rate:.2f} s are there; fetch or convert it again"
    )
