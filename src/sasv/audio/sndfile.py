"""Reading through libsndfile: WAV, FLAC, OGG, MP3, SPHERE, AIFF, AU, W64, CAF, and others. Needs no
extra.
"""

import re
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import soundfile

from sasv.audio.containers import caf_bytes, mp3_samples, ogg_state
from sasv.audio.source import (
    BLOCK_VALUES,
    SAMPLES_PER_BYTE,
    AudioInfo,
    Length,
    check_format,
    truncated,
)
from sasv.core.errors import AudioError
from sasv.storage.resource import QuietStream, Resource

SIZED = ("WAV", "WAVEX", "RF64", "AIFF", "AU", "W64")
"""Formats for which the log of libsndfile tells the stated and the actual number of bytes."""

PROMISED = re.compile(r"(?:data|SSND|Data Size|Riff size|riff)\s*: (\d+) \(should be (\d+)\)")

STREAM_BYTES = 0x7F000000
"""Sizes from here on are placeholders of programs that do not know the size (pipes of SoX, FFmpeg,
arecord) and are ignored.
"""

HEADER_BYTES = 1024
"""Maximum size in bytes of a WAV file that is really empty. In a larger one, the header was never
completed and the samples follow it.
"""

MP3_DELAY = 2400
"""The length that libsndfile reports and that of all frames may differ by this many samples
(encoder delay, or an estimate from the file size); missing samples at the end become silence.
"""


class SndfileSource:
    """A file that libsndfile reads and whose length it knows."""

    def __init__(self, resource: Resource, file: soundfile.SoundFile, stream: QuietStream | None):
        self.name = resource.name
        self.resource = resource
        self.file = file
        self.stream = stream
        self.info = AudioInfo(file.samplerate, file.channels, file.frames)
        self.at = 0

    def blocks(self, first: int, count: int | None) -> Iterator[np.ndarray]:
        """Yield blocks (samples, channels).

        Raises:
            AudioError: the file ends earlier than its header states.
        """
        wanted = self.info.samples - first if count is None else count
        most = max(1, BLOCK_VALUES // self.info.channels)
        try:
            self._go_to(first, most)
            done = 0
            while done < wanted:
                data = self._read(min(most, wanted - done))
                self.at += len(data)
                done += len(data)
                if len(data):
                    yield data
                elif self.file.format == "MP3" and wanted - done <= MP3_DELAY:
                    yield np.zeros((wanted - done, self.info.channels), np.float32)
                    return
                else:
                    raise truncated(self.name, self.info.samples, first + done, self.info.rate)
        except soundfile.SoundFileError as error:
            _check(self.stream)
            raise AudioError(
                f"{self.name}: damaged or truncated audio ({_reason(error)}); download or "
                "convert it again"
            ) from error

    def _go_to(self, first: int, most: int) -> None:
        """Move to a sample; formats that are not seekable, such as GSM, are read up to it."""
        if first == self.at:
            return
        if self.file.seekable():
            self.file.seek(first)
            self.at = first
            return
        if first < self.at:
            self.file.close()
            self.file, self.stream = _opened(self.resource)
            self.at = 0
        while self.at < first:
            passed = len(self._read(min(most, first - self.at)))
            if not passed:
                raise truncated(self.name, self.info.samples, self.at, self.info.rate)
            self.at += passed

    def _read(self, samples: int) -> np.ndarray:
        """Return up to ``samples`` samples (samples, channels) from the current position."""
        if self.file.subtype == "PCM_16" and self.file.format in ("WAV", "WAVEX"):
            # NumPy converts them twice as fast as libsndfile, to the same values.
            integers = self.file.read(samples, dtype="int16", always_2d=True)
            data: np.ndarray = integers * np.float32(1 / 32768)
        else:
            data = self.file.read(samples, dtype="float32", always_2d=True)
        _check(self.stream)
        return data

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def open_sndfile(resource: Resource) -> tuple[SndfileSource | None, str]:
    """Open a file. Return (None, reason) if libsndfile cannot read it or determine its length.

    Raises:
        AudioError: the format is one that libsndfile reads, but the file is damaged.
    """
    try:
        file, stream = _opened(resource)
    except (soundfile.SoundFileError, TypeError) as error:
        _check_caf(resource)
        return None, _reason(error)
    try:
        check_format(resource.name, file.samplerate, file.channels)
        length = _length(resource, file)
    except BaseException:
        file.close()
        raise
    if length is Length.EXACT:
        return SndfileSource(resource, file, stream), ""
    kind = file.format
    file.close()
    return None, f"a {kind} of unknown length"


def _opened(resource: Resource) -> tuple[soundfile.SoundFile, QuietStream | None]:
    """Open a file by its path, and any other resource as a stream."""
    if resource.path is not None:
        return soundfile.SoundFile(resource.path), None
    stream = QuietStream(resource.open())
    try:
        file = soundfile.SoundFile(stream)
    except soundfile.SoundFileError:
        stream.check()
        raise
    if stream.error is not None:
        file.close()
    stream.check()
    return file, stream


def _check(stream: QuietStream | None) -> None:
    """Raise the error that occurred while reading from the stream, if any."""
    if stream is not None:
        stream.check()


def _length(resource: Resource, file: soundfile.SoundFile) -> Length:
    """Return how reliable the length from libsndfile is. Raise AudioError if the file is truncated
    or empty.
    """
    name = resource.name
    kind = file.format
    if file.frames <= 0:
        if resource.size > HEADER_BYTES:
            return Length.UNKNOWN
        raise AudioError(f"{name}: contains no audio (0 samples); record or convert it again")
    if file.frames > SAMPLES_PER_BYTE * resource.size:
        return Length.UNKNOWN
    if kind in SIZED:
        for promised, present in PROMISED.findall(file.extra_info):
            if int(present) < int(promised) < STREAM_BYTES:
                samples = file.frames * int(promised) // max(int(present), 1)
                raise truncated(name, samples, file.frames, file.samplerate)
    elif kind == "NIST":
        promised = _sphere_samples(resource)
        if promised > file.frames:
            raise truncated(name, promised, file.frames, file.samplerate)
    elif kind == "OGG":
        state = _ogg_state(resource)
        if state == "cut":
            raise AudioError(
                f"{name}: truncated: the OGG stream has no end; download or convert it again"
            )
        if state == "chained":
            return Length.UNKNOWN
    elif kind == "MP3":
        counted, believed = _mp3_samples(resource)
        if not believed and abs(counted - file.frames) > MP3_DELAY:
            return Length.ESTIMATED
    return Length.EXACT


@lru_cache(maxsize=1 << 16)
def _ogg_state(resource: Resource) -> str:
    with resource.mapped() as data:
        return ogg_state(data)


@lru_cache(maxsize=1 << 16)
def _mp3_samples(resource: Resource) -> tuple[int, bool]:
    with resource.mapped() as data:
        return mp3_samples(data)


def _check_caf(resource: Resource) -> None:
    """Raise AudioError if a CAF file is truncated; libsndfile would only report "malformed"."""
    if resource.start(4) != b"caff":
        return
    with resource.mapped() as data:
        promised, present = caf_bytes(data)
    if present < promised:
        raise AudioError(
            f"{resource.name}: truncated: the header promises {promised:,} bytes of audio, but "
            f"{present:,} are there; download or convert it again"
        )


def _sphere_samples(resource: Resource) -> int:
    """Return the sample count of a SPHERE header, 0 if there is none."""
    found = re.search(rb"\nsample_count -i (\d+)", resource.start(1024))
    return int(found[1]) if found else 0


def _reason(error: Exception) -> str:
    """Return the message of libsndfile without the path, which our message contains already."""
    return (
        str(getattr(error, "error_string", error)).removeprefix("Error : ").strip(". ") or "broken"
    )
