"""Lossless conversion of integer PCM recordings to FLAC, in about half the bytes."""

import io
from contextlib import closing

import soundfile

from sasv.audio.sndfile import open_sndfile
from sasv.storage import Resource

LOSSLESS = {"PCM_16": "int16", "PCM_24": "int32"}
"""Encodings of libsndfile that FLAC stores losslessly -> the number type to read them as."""

MOST_CHANNELS = 8
HIGHEST_RATE = 655_350
"""Limits of the FLAC format."""


def as_flac(resource: Resource) -> bytes | None:
    """Return a recording as FLAC with its sample rate and all its channels; None if FLAC would not
    be lossless, or if the recording is FLAC already.

    Raises:
        AudioError: the recording is damaged.
    """
    source, _ = open_sndfile(resource)
    if source is None:
        return None
    with closing(source):
        file = source.file
        kept = LOSSLESS.get(file.subtype)
        if (
            kept is None
            or file.format == "FLAC"
            or file.channels > MOST_CHANNELS
            or file.samplerate > HIGHEST_RATE
        ):
            return None
        stream = io.BytesIO()
        soundfile.write(
            stream, file.read(dtype=kept), file.samplerate, format="FLAC", subtype=file.subtype
        )
        return stream.getvalue()
