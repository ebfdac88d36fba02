"""The effects of telephone lines and internet calls on speech: band limits, companding, codecs, and
lower sample rates. The output has the same length as the input and is aligned with it.

The telephone band and the companding laws of G.711 are computed here. G.722, AMR, Opus and MP3 use
PyAV (``sasv[m4a]``).
"""

import io
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import soxr

from sasv.audio.io import RATE
from sasv.core.errors import MissingExtra, SasvError

TELEPHONE_RATE = 8000
TELEPHONE_BAND = (300.0, 3400.0)
MU = 255.0
A = 87.6


class Coded(NamedTuple):
    """A codec of PyAV: its name in PyAV, container, samples per second, bit rates to draw from, and
    delay in samples.
    """

    codec: str
    container: str
    rate: int
    bit_rates: tuple[int, ...]
    delay: int = 0


CODED = {
    "g722": Coded("g722", "wav", RATE, (64000,), 22),
    "amr": Coded("libopencore_amrnb", "amr", TELEPHONE_RATE, (4750, 7950, 12200), 79),
    "opus": Coded("libopus", "ogg", RATE, (8000, 12000, 16000, 24000, 32000)),
    "mp3": Coded("libmp3lame", "mp3", RATE, (16000, 24000, 32000, 64000)),
}
LOWER_RATES = (11025, 12000, 14000)
"""Range of the sample rate that ``resampled`` draws, in Hz."""

CODECS = ("resampled", "8khz", "mulaw", "alaw", *CODED)


def check_codecs(names: list[str]) -> None:
    """Check that codecs exist and can be used.

    Raises:
        SasvError: a codec is unknown.
        MissingExtra: the package of a codec is not installed.
    """
    for name in names:
        if name not in CODECS:
            raise SasvError(f"unknown codec '{name}'; use one of: {', '.join(CODECS)}")
        if name in CODED:
            _av(name)


def transmit(
    wave: np.ndarray, name: str, rng: np.random.Generator, bit_rate: int | None = None
) -> np.ndarray:
    """Encode and decode speech with a codec.

    Args:
        wave: float32 speech at 16 kHz, (samples,).
        name: a key of ``CODECS``.
        rng: draws the bit rate, or the lower sample rate of ``resampled``.
        bit_rate: of a codec with several; left out, it is drawn.

    Returns:
        The decoded speech at 16 kHz, (samples,), aligned with ``wave`` and of the same length.
    """
    if name in CODED:
        coded = CODED[name]
        return _coded(wave, name, coded, bit_rate or int(rng.choice(coded.bit_rates)))
    if name == "resampled":
        lower = int(rng.choice(LOWER_RATES))
        return _fitted(soxr.resample(soxr.resample(wave, RATE, lower), lower, RATE), len(wave))
    narrow = soxr.resample(wave, RATE, TELEPHONE_RATE)
    spectrum = np.fft.rfft(narrow)
    frequency = np.fft.rfftfreq(len(narrow), 1 / TELEPHONE_RATE)
    low, high = TELEPHONE_BAND
    narrow = np.fft.irfft(
        spectrum * np.clip((frequency - low / 2) / (low / 2), 0, 1) * (frequency < high),
        len(narrow),
    )
    if name == "mulaw":
        narrow = (
            np.sign(narrow)
            * np.expm1(_eight_bits(np.log1p(MU * np.abs(narrow)) / np.log1p(MU)) * np.log1p(MU))
            / MU
        )
    elif name == "alaw":
        size = np.abs(narrow)
        knee = 1 / (1 + np.log(A))
        pressed = _eight_bits(
            np.where(size < 1 / A, A * size, 1 + np.log(np.maximum(A * size, 1))) * knee
        )
        narrow = np.sign(narrow) * np.where(
            pressed < knee, pressed / knee / A, np.exp(pressed / knee - 1) / A
        )
    return _fitted(soxr.resample(narrow.astype(np.float32), TELEPHONE_RATE, RATE), len(wave))


def _eight_bits(pressed: np.ndarray) -> np.ndarray:
    """Round magnitudes in [0, 1] to 7 bits; the sign is the eighth bit."""
    return np.round(np.minimum(pressed, 1.0) * 127) / 127


def _fitted(wave: np.ndarray, samples: int) -> np.ndarray:
    return np.pad(wave[:samples], (0, max(0, samples - len(wave)))).astype(np.float32)


def _av(name: str) -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingExtra("PyAV", "m4a", f"the codec {name}") from error
    return av


def _coded(wave: np.ndarray, name: str, coded: Coded, bit_rate: int) -> np.ndarray:
    """Encode and decode a waveform in memory."""
    av = _av(name)
    samples = soxr.resample(wave, RATE, coded.rate)
    file = io.BytesIO()
    with av.open(file, "w", format=coded.container) as out:
        stream = out.add_stream(coded.codec, rate=coded.rate, layout="mono")
        stream.bit_rate = bit_rate
        whole = np.clip(np.round(samples * 32767), -32768, 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(whole[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = coded.rate, 0, Fraction(1, coded.rate)
        for part in (frame, None):
            out.mux(stream.encode(part))
    file.seek(0)
    resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
    with av.open(file) as container:
        frames = [
            piece for frame in container.decode(audio=0) for piece in resampler.resample(frame)
        ]
    frames += resampler.resample(None)
    return _fitted(
        np.concatenate([frame.to_ndarray()[0] for frame in frames])[coded.delay :], len(wave)
    )
