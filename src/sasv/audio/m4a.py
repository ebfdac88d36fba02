"""M4A and AAC (VoxCeleb2 as downloaded) through PyAV, from the extra ``sasv[m4a]``."""

from collections.abc import Callable
from typing import Any

import numpy as np

from sasv.core.errors import AudioError, MissingExtra

SUFFIXES = (".m4a", ".aac", ".mp4", ".m4b")


def handles(name: str) -> bool:
    """Whether the file is read by PyAV and not by soundfile."""
    return name.lower().endswith(SUFFIXES)


def _open(name: str) -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingExtra("PyAV", "m4a", f"{name}: reading M4A/AAC") from error
    try:
        container = av.open(name)
    except (av.error.FFmpegError, OSError) as error:
        raise AudioError(f"{name}: not an audio file that can be read ({error}); fetch or convert it again") from error
    if not container.streams.audio:
        container.close()
        raise AudioError(f"{name}: holds no audio stream; fetch or convert it again")
    return container


def probe(name: str) -> tuple[int, int, int]:
    """Return (rate, channels, samples) as the container states them; a raw AAC stream is decoded to count."""
    with _open(name) as container:
        stream = container.streams.audio[0]
        if stream.duration is not None:
            frames = int(stream.duration * stream.time_base * stream.rate)
            return stream.rate, stream.channels, frames
        rate = int(stream.rate)
    whole = reader(name, rate)(0, 1 << 62)
    return rate, whole.shape[1], len(whole)


def reader(name: str, rate: int) -> Callable[[int, int], np.ndarray]:
    """Return a function (first, count) -> array (samples, channels) at ``rate``, the native one that probe gave."""

    def read(first: int, count: int) -> np.ndarray:
        import av

        chunks: list[np.ndarray] = []
        begin = 0  # position of the first decoded sample
        have = 0
        with _open(name) as container:
            stream = container.streams.audio[0]
            # AAC frames lean on the one before: start a few early.
            early = first - 4096
            if early > 0 and stream.time_base:
                container.seek(int(early / rate / stream.time_base), stream=stream)
            try:
                for frame in container.decode(stream):
                    if not chunks:
                        begin = round(float(frame.time or 0.0) * rate)
                    data = frame.to_ndarray()
                    channels = frame.layout.nb_channels
                    if not frame.format.is_planar:
                        data = data.reshape(-1, channels).T
                    if data.dtype.kind == "i":
                        data = data.astype(np.float32) / -float(np.iinfo(data.dtype).min)
                    chunks.append(data.T.astype(np.float32))
                    have += data.shape[1]
                    if begin + have >= first + count:
                        break
            except av.error.FFmpegError as error:
                raise AudioError(f"{name}: broken or truncated audio ({error}); fetch or convert it again") from error
        if not chunks:
            raise AudioError(f"{name}: holds no audio; fetch or convert it again")
        data = np.concatenate(chunks)
        skip = max(0, first - begin)
        data = data[skip : skip + count]
        # Containers round their duration; a few missing samples at the end are silence, more are a truncation.
        if count < 1 << 61 and len(data) < count:
            if count - len(data) > rate // 5:
                present = (first + len(data)) / rate
                raise AudioError(
                    f"{name}: truncated: the header promises {(first + count) / rate:.2f} s, "
                    f"{present:.2f} s are there; fetch it again"
                )
            data = np.pad(data, ((0, count - len(data)), (0, 0)))
        return data

    return read
