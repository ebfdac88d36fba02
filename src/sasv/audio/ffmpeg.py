"""Reading through PyAV (the extra ``sasv[m4a]``): M4A, AAC, WebM, AMR, 3GP, WMA, and files of
unknown length.
"""

import os
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from sasv.audio.containers import mp3_frame
from sasv.audio.source import AudioInfo, Length, check_format, truncated
from sasv.core.errors import AudioError, MissingExtra
from sasv.storage.resource import Resource

FORMATS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,eac3,flac,flv,gsm,matroska,webm,mov,mp4,m4a,3gp,3g2,mp3,mpegts,"
    "nistsphere,ogg,rm,tta,w64,wav,wv,xwma"
)
"""Containers that are read. Containers that refer to other files or addresses (playlists) and those
that accept arbitrary bytes are excluded.
"""

EARLY_SAMPLES = 4096
"""AAC frames depend on the previous frame, so decoding starts a few frames before a crop."""

ROUNDED_SHARE = 5
"""Containers round their length. If up to this many seconds are missing at the end, silence is
added; if more are missing, the file is truncated.
"""

STATED = "matroska"
"""Containers, such as WebM, that state the length of the whole recording. If much of it is missing,
the file is truncated.
"""

MISSING_SHARE = 0.05
"""The stated length may exceed the audio by this share, or by a second."""

MICROSECONDS = 1_000_000
"""Unit of the duration that a container states."""

LONGEST_COUNT_SECONDS = 24 * 3600.0
"""Longest audio, in seconds, that is decoded only to count its samples."""


class FfmpegSource:
    """A file that PyAV reads. The length is exact for an MP4 with a table of its frames; otherwise
    it is unknown or estimated.
    """

    def __init__(self, resource: Resource):
        self.resource = resource
        self.name = resource.name
        with _open(resource) as container:
            stream = container.streams.audio[0]
            rate = int(stream.codec_context.sample_rate)
            channels = int(stream.codec_context.channels)
            check_format(self.name, rate, channels)
            samples = 0
            length = Length.UNKNOWN
            self.stated = 0.0
            if len(container.streams) == 1 and container.format.name.startswith(STATED):
                self.stated = (container.duration or 0) / MICROSECONDS
            if stream.duration and stream.time_base:
                samples = int(stream.duration * stream.time_base * rate)
                tabled = "mp4" in container.format.name and stream.frames > 0
                length = Length.EXACT if tabled else Length.ESTIMATED
        self.info = AudioInfo(rate, channels, samples, length)

    def blocks(self, first: int, count: int | None) -> Iterator[np.ndarray]:
        """Yield blocks (samples, channels).

        If the length is exact, decoding begins shortly before ``first``, otherwise at the beginning
        of the file.

        Raises:
            AudioError: the file is damaged, or is shorter than its exact length.
        """
        exact = self.info.length is Length.EXACT
        if count is None and exact:
            count = self.info.samples - first
        missing = count
        for position, frame in self._frames(first if exact else 0):
            stop = position + frame.samples
            if stop <= first:
                continue
            data = _samples_of(frame)[max(0, first - position) :]
            if missing is not None:
                data = data[:missing]
                missing -= len(data)
            yield data
            if missing == 0:
                return
        if missing and exact and count is not None:
            rate = self.info.rate
            found = first + count - missing
            if missing > rate // ROUNDED_SHARE:
                raise truncated(self.name, first + count, found, rate)
            yield np.zeros((missing, self.info.channels), np.float32)

    def _frames(self, first: int) -> Iterator[tuple[int, Any]]:
        """Yield (position of its first sample, decoded frame), starting shortly before sample
        ``first``.
        """
        import av

        rate = self.info.rate
        channels = self.info.channels
        with _open(self.resource) as container:
            stream = container.streams.audio[0]
            early = first - EARLY_SAMPLES
            if early > 0:
                container.seek(int(early / rate / stream.time_base), stream=stream)
            position = 0
            begun = False
            try:
                for frame in _decoded(container, stream):
                    if frame.sample_rate != rate or frame.layout.nb_channels != channels:
                        raise AudioError(
                            f"{self.name}: changes from {rate} Hz and {channels} channels to "
                            f"{frame.sample_rate} Hz "
                            f"and {frame.layout.nb_channels} at {position / rate:.2f} s; convert "
                            "it to WAV or FLAC"
                        )
                    if not begun and self.info.length is Length.EXACT:
                        position = round(float(frame.time or 0.0) * rate)
                    begun = True
                    yield position, frame
                    position += frame.samples
            except (av.error.FFmpegError, ValueError, OverflowError) as error:
                raise AudioError(
                    f"{self.name}: damaged or truncated audio ({error}); download or convert it "
                    "again"
                ) from error
        if not begun:
            raise AudioError(f"{self.name}: contains no audio; download or convert it again")
        if self.stated - position / rate > max(1.0, MISSING_SHARE * self.stated):
            raise truncated(self.name, round(self.stated * rate), position, rate)

    def counted(self) -> int:
        """Return the samples per channel by decoding the whole file, one frame in memory at a
        time.
        """
        total = 0
        for _, frame in self._frames(0):
            total += frame.samples
            if total > LONGEST_COUNT_SECONDS * self.info.rate:
                raise AudioError(
                    f"{self.name}: more than {LONGEST_COUNT_SECONDS / 3600:.0f} hours long; cut "
                    "it into utterances"
                )
        return total

    def close(self) -> None:
        """Do nothing: no file stays open between reads."""


@lru_cache(maxsize=1 << 16)
def counted_samples(resource: Resource) -> int:
    """Return the samples per channel of a file whose header does not state them. The count is kept
    until the size or date of the file changes.
    """
    return FfmpegSource(resource).counted()


def installed() -> bool:
    """Whether PyAV can be imported."""
    try:
        import av  # noqa: F401
    except ImportError:
        return False
    return True


def _open(resource: Resource) -> Any:
    name = resource.name
    try:
        import av
    except ImportError as error:
        raise MissingExtra("PyAV", "m4a", f"{name}: reading this file") from error
    try:
        # The path is absolute, because FFmpeg would take a name such as "http:x" for an address.
        container = av.open(
            resource.open() if resource.path is None else os.path.abspath(name),
            metadata_errors="replace",
            options={"format_whitelist": FORMATS, "protocol_whitelist": "file"},
        )
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise AudioError(
            f"{name}: not an audio file that can be read ({reason}); convert it to WAV or FLAC"
        ) from error
    if not container.streams.audio:
        container.close()
        raise AudioError(f"{name}: contains no audio stream; download or convert it again")
    if container.streams.audio[0].codec_context is None:
        container.close()
        raise AudioError(f"{name}: its audio codec is unknown; convert it to WAV or FLAC")
    return container


def _decoded(container: Any, stream: Any) -> Iterator[Any]:
    """Yield the frames of a stream. Tags between the frames of an MP3, as in concatenated files,
    are skipped.
    """
    import av

    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            if container.format.name == "mp3" and mp3_frame(bytes(packet), 0) is None:
                continue
            raise
        yield from frames


def _samples_of(frame: Any) -> np.ndarray:
    """Return a decoded frame as float32 (samples, channels)."""
    data = frame.to_ndarray()
    if frame.format.is_planar:
        data = data.T
    else:
        data = data.reshape(-1, frame.layout.nb_channels)
    if data.dtype.kind == "u":
        return (data.astype(np.float32) - 128) / 128
    if data.dtype.kind == "i":
        return data.astype(np.float32) / -float(np.iinfo(data.dtype).min)
    return data.astype(np.float32)
