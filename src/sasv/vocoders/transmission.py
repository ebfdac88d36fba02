"""Telephone and internet codecs as transmission conditions, after which bona fide speech remains
bona fide.

Only the column ``codec`` of a table changes, and not its labels. A bit rate is drawn for each
utterance.
"""

from typing import ClassVar

import numpy as np

from sasv.audio.codecs import check_codecs, transmit
from sasv.vocoders.base import Vocoder


class Transmission(Vocoder):
    """Encodes and decodes speech with a codec of ``sasv.audio.codecs``."""

    condition = True
    codec: ClassVar[str] = ""

    def __init__(self, weights: str = "", device: str = "cpu") -> None:
        super().__init__(weights, device)
        check_codecs([self.codec])

    def resynthesise(self, wave: np.ndarray, seed: int) -> np.ndarray:
        return transmit(wave, self.codec, np.random.default_rng(seed))


class Resampled(Transmission):
    """Resampling to a lower rate, 11.025 to 14 kHz, and back."""

    codec = "resampled"


class Narrowband(Transmission):
    """Resampling to 8 kHz, and the telephone band."""

    codec = "8khz"


class MuLaw(Transmission):
    """G.711 mu-law."""

    codec = "mulaw"


class ALaw(Transmission):
    """G.711 A-law."""

    codec = "alaw"


class G722(Transmission):
    """G.722 at 64 kbit/s."""

    codec = "g722"
    licence = "LGPL/GPL (PyAV wheel)"


class Amr(Transmission):
    """AMR narrowband, 4.75 to 12.2 kbit/s."""

    codec = "amr"
    licence = "LGPL/GPL (PyAV wheel)"


class Opus(Transmission):
    """Opus, 8 to 32 kbit/s."""

    codec = "opus"
    licence = "LGPL/GPL (PyAV wheel)"


class Mp3(Transmission):
    """MP3, 16 to 64 kbit/s."""

    codec = "mp3"
    licence = "LGPL/GPL (PyAV wheel)"
