"""The seven augmentations of the published Stage 1. One of them is drawn uniformly for each crop.

They are: none; reverberation; music at 5-15 dB; babble of 3-7 speech files at 13-20 dB each; noise
at 0-15 dB; babble plus music; speed 0.95 or 1.05. Augmentations whose files are not given are not
drawn. A telephone or codec condition may be applied afterwards (not part of the publication).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr

from sasv.audio import is_audio_name, read_audio
from sasv.audio.codecs import check_codecs, transmit
from sasv.core.errors import SasvError

SNR = {"noise": (0.0, 15.0), "speech": (13.0, 20.0), "music": (5.0, 15.0)}
ALL = ("none", "reverberation", "music", "speech", "noise", "speech and music", "speed")
"""The seven augmentations; speech is babble."""

BABBLE = (3, 7)
SPEEDS = ((20, 19), (20, 21))
"""(output samples, input samples) of the resampling for the speeds 0.95 and 1.05."""


def _is_audio(path: Path) -> bool:
    return is_audio_name(path.name) and not path.name.startswith(".") and path.is_file()


def audio_files(folder: str | Path) -> list[str]:
    """Return the audio files below a folder, sorted. Raises SasvError if there are none."""
    if not Path(folder).is_dir():
        raise SasvError(f"{folder}: there is no such folder; check the path")
    found = sorted(str(path) for path in Path(folder).rglob("*") if _is_audio(path))
    if not found:
        raise SasvError(f"{folder}: the folder contains no audio files; check the path")
    return found


class Augmenter:
    """Draws and applies one augmentation for each crop.

    Args:
        noises: a folder in the layout of MUSAN with the subfolders ``noise``, ``speech``, and
            ``music`` (whole or split files), or any folder of noise; "" for none.
        rirs: a folder of room impulse responses; "" for none.
        codecs: telephone and codec conditions (see ``sasv.audio.codecs.CODECS``).
        codec_share: probability that one of these conditions is applied to a crop.
        augment_share: probability that one of the augmentations is drawn at all.
        snr_offset: decibels by which all signal-to-noise ratios are raised.
        level_range: maximum change of the level of a crop, up or down, in decibels.
    """

    def __init__(
        self,
        noises: str = "",
        rirs: str = "",
        codecs: Sequence[str] = (),
        codec_share: float = 0.5,
        augment_share: float = 1.0,
        snr_offset: float = 0.0,
        level_range: float = 0.0,
    ):
        check_codecs(list(codecs))
        self.codecs = list(codecs)
        self.codec_share = codec_share
        self.augment_share = augment_share
        self.snr_offset = snr_offset
        self.level_range = level_range
        self.files: dict[str, list[str]] = {}
        if noises:
            parts = {kind: Path(noises) / kind for kind in SNR if (Path(noises) / kind).is_dir()}
            self.files = {
                kind: audio_files(folder)
                for kind, folder in (parts or {"noise": Path(noises)}).items()
            }
        self.rirs = audio_files(rirs) if rirs else []
        have = {"none", "speed", *self.files}
        if self.rirs:
            have.add("reverberation")
        if {"speech", "music"} <= have:
            have.add("speech and music")
        self.choices = [name for name in ALL if name in have]

    def __call__(self, wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the augmented crop, of the same length."""
        wave, change, gain = self.begin(wave, rng)
        wave = change(wave)
        return wave if gain == 1 else np.clip(gain * wave, -1.0, 1.0)

    def begin(
        self, wave: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, "Change", np.float32]:
        """Draw the augmentation of a crop, and read the files that it needs.

        Returns:
            the crop, the change that remains to be applied (none if a codec was applied, because
            that requires the changed crop), and the gain to be applied last.
        """
        change = NO_CHANGE
        # With a share of 1, no further random number is drawn, so that earlier runs can be repeated
        # exactly.
        if self.augment_share == 1 or rng.random() < self.augment_share:
            change = self.draw(self.choices[rng.integers(len(self.choices))], len(wave), rng)
        if self.codecs and rng.random() < self.codec_share:
            wave = transmit(change(wave), self.codecs[rng.integers(len(self.codecs))], rng)
            change = NO_CHANGE
        gain = np.float32(1)
        if self.level_range:
            gain = np.float32(10 ** (rng.uniform(-self.level_range, self.level_range) / 20))
        return wave, change, gain

    def described(self) -> list[str]:
        """Return the names of all augmentations and codecs that may be applied to a crop."""
        return [*self.choices, *self.codecs]

    def draw(self, name: str, samples: int, rng: np.random.Generator) -> "Change":
        """Draw the augmentation called ``name`` (one of ALL) for a crop of ``samples`` samples."""
        if name == "none":
            return NO_CHANGE
        if name == "reverberation":
            return Change(rir=self._rir(samples, rng))
        if name == "speed":
            return Change(speed=int(rng.integers(2)))
        return Change(noises=[self.noises(kind, samples, rng) for kind in name.split(" and ")])

    def noises(
        self, kind: str, samples: int, rng: np.random.Generator
    ) -> list[tuple[np.ndarray, float]]:
        """Draw noise, music, or several speakers, each with its signal-to-noise ratio in dB."""
        count = int(rng.integers(BABBLE[0], BABBLE[1] + 1)) if kind == "speech" else 1
        files = self.files[kind]
        picks = rng.choice(len(files), size=min(count, len(files)), replace=False)
        drawn = []
        for pick in picks:
            noise = read_audio(files[pick], samples=samples, place=rng.random())
            if len(noise) < samples:
                noise = np.resize(noise, samples)
            drawn.append((noise, rng.uniform(*SNR[kind]) + self.snr_offset))
        return drawn

    def _rir(self, samples: int, rng: np.random.Generator) -> np.ndarray:
        """Draw a room impulse response and normalise it to unit energy."""
        rir = read_audio(self.rirs[rng.integers(len(self.rirs))], samples=samples, place=0.0)
        return rir / max(float(np.sqrt(np.square(rir).sum())), 1e-9)


@dataclass(frozen=True)
class Change:
    """The augmentation that was drawn for a crop: at most one of the three kinds.

    Attributes:
        noises: rounds of noise, each a list of (noise as long as the crop, signal-to-noise ratio in
            dB relative to the crop before this round).
        rir: room impulse response of unit energy, with which the crop is convolved; the result is
            cut to the length of the crop.
        speed: index in SPEEDS of the speed at which the crop is played, which changes its pitch as
            well; the result is cut or repeated to the length of the crop.
    """

    noises: Sequence[Sequence[tuple[np.ndarray, float]]] = ()
    rir: np.ndarray | None = None
    speed: int | None = None

    def __call__(self, wave: np.ndarray) -> np.ndarray:
        """Return the changed crop."""
        for drawn in self.noises:
            total = wave.copy()
            for noise, snr in drawn:
                total += at_snr(wave, noise, snr)
            wave = total
        if self.rir is not None:
            wave = convolve(wave, self.rir)
        if self.speed is not None:
            outputs, inputs = SPEEDS[self.speed]
            wave = np.resize(soxr.resample(wave, inputs, outputs), len(wave))
        return wave.astype(np.float32)


NO_CHANGE = Change()


def at_snr(wave: np.ndarray, noise: np.ndarray, decibels: float) -> np.ndarray:
    """Scale noise so that its power is ``decibels`` below that of the wave; silent noise stays
    silent.
    """
    power = float(np.square(wave).mean())
    other = float(np.square(noise).mean())
    return (
        noise * np.float32(np.sqrt(power / (other * 10 ** (decibels / 10)))) if other > 0 else noise
    )


def convolve(wave: np.ndarray, rir: np.ndarray) -> np.ndarray:
    """Convolve by FFT (linear convolution), and cut the result to the length of the wave."""
    size = 1 << (len(wave) + len(rir) - 2).bit_length()
    return np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(rir, size), size)[: len(wave)].astype(
        np.float32
    )
