"""Reading a 2-second crop against reading the whole file and cutting it."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from common import header, is_quick, measure, row
from sasv.audio import read_audio

SAMPLES = 32240


def main(words: Sequence[str] | None = None) -> None:
    count = 2 if is_quick(words, __doc__) else 50
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for seconds, rate, suffix in (
            (8, 16000, "flac"),
            (20, 16000, "flac"),
            (20, 44100, "flac"),
            (20, 16000, "wav"),
        ):
            path = Path(folder) / f"{seconds}-{rate}.{suffix}"
            time = np.arange(seconds * rate) / rate
            wave = sum(np.sin(2 * np.pi * 130 * k * time) / k for k in range(1, 20))
            soundfile.write(path, 0.05 * wave + 0.003 * rng.standard_normal(len(time)), rate)
            places = rng.random(count)
            whole = measure(
                lambda path=path, places=places: [whole_then_cut(path, place) for place in places]
            )
            crop = measure(
                lambda path=path, places=places: [
                    read_audio(path, samples=SAMPLES, place=place) for place in places
                ]
            )
            header(f"{count} crops of 2 s from {seconds} s of {suffix} at {rate} Hz")
            row("whole file, then cut (baseline)", whole)
            row("crop alone", crop, whole, f"{count / crop:.0f} crops/s")


def whole_then_cut(path: Path, place: float) -> np.ndarray:
    """A loader that reads whole files."""
    wave = read_audio(path)
    start = int(place * (len(wave) - SAMPLES + 1))
    return wave[start : start + SAMPLES]


if __name__ == "__main__":
    main()
