"""The synthetic corpus of the demonstration: speakers rendered by espeak-ng, in the layout of
LibriSpeech.

The voice variants of espeak-ng sound alike, so that each speaker here has a voice file of its own,
which sets vocal tract length and single formants, their widths and heights, pitch and its range,
breathiness, roughness, speed, and accent. The parameters come from a low-discrepancy sequence,
which keeps the speakers distinct. The voices are synthetic: they show that the pipeline works, but
not how well it performs on people.
"""

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr

from sasv.audio import RATE, write_audio
from sasv.core.errors import MissingExtra, SasvError
from sasv.core.progress import Progress

ACCENTS = (
    "en",
    "en-US",
    "en-GB-scotland",
    "en-GB-x-rp",
    "en-029",
    "en-GB-x-gbclan",
    "en-GB-x-gbcwmd",
)
FORMANTS = 9
ROOT_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)

NAMES = (
    "Anna Ben Clara David Ella Frank Greta Henry Iris James Karen Louis Maria Noah Olive "
    "Peter Rosa Samuel"
)
VERBS = (
    "carried found painted sold borrowed counted forgot opened cleaned followed repaired "
    "watched moved"
)
SIZES = "small heavy yellow broken quiet ancient narrow golden empty wooden famous frozen silver"
THINGS = (
    "boat garden letter window violin bridge basket market mountain engine village picture ladder"
)
PLACES = (
    "by the river,near the station,behind the church,on the hill,under the old oak,across the road"
)
TIMES = (
    "before breakfast,last Thursday,in early spring,after the storm,every evening,for seven years"
)


@dataclass(frozen=True)
class Voice:
    """One synthetic speaker. Values are between 0 and 1 unless stated otherwise."""

    name: str
    accent: str
    values: tuple[float, ...]

    def lines(self) -> str:
        """Return the content of the espeak-ng voice file."""
        tract, pitch, span, width, tilt, breath, rough = self.values[:7]
        scale = (
            82 + 40 * tract
        )  # percent of the built-in formant frequencies: long to short vocal tract
        # Short vocal tracts mostly have high voices.
        low = 65 + 90 * pitch + 75 * tract
        text = [
            "language variant",
            f"name {self.name}",
            f"pitch {low:.0f} {low * (1.15 + 0.55 * span):.0f}",
        ]
        for number in range(FORMANTS):
            single = 12 * (self.values[7 + number % 5] - 0.5) if number else 0
            height = 100 + (60 * (tilt - 0.5) if number > 2 else 0)
            text.append(f"formant {number} {scale + single:.0f} {height:.0f} {75 + 90 * width:.0f}")
        if breath > 0.5:
            amount = round(8 * (breath - 0.5))
            text.append(f"breath 0 {' '.join([str(amount)] * 7)}")
        text.append(f"roughness {round(5 * rough)}")
        return "\n".join(text) + "\n"

    @property
    def words_per_minute(self) -> int:
        """Speaking rate."""
        return int(130 + 75 * self.values[-1])


def voices(count: int, seed: int = 0) -> list[Voice]:
    """Return distinct voices, whose parameters a Kronecker sequence distributes evenly."""
    rng = np.random.default_rng(seed)
    steps = np.sqrt(np.array(ROOT_PRIMES + (41,)))
    table = (rng.random(len(steps)) + np.arange(count)[:, None] * steps) % 1.0
    return [
        Voice(f"sasv{index:04}", ACCENTS[index % len(ACCENTS)], tuple(row.tolist()))
        for index, row in enumerate(table)
    ]


def sentence(rng: np.random.Generator) -> str:
    """Return a random English sentence."""

    def pick(words: str) -> str:
        choices = words.split("," if "," in words else " ")
        return choices[rng.integers(len(choices))]

    when = pick(PLACES) if rng.random() < 0.5 else pick(TIMES)
    return f"{pick(NAMES)} {pick(VERBS)} the {pick(SIZES)} {pick(THINGS)} {when}."


class Espeak:
    """espeak-ng from the package ``espeakng-loader``, with our own voice files. Only one instance
    can exist per process.
    """

    def __init__(self, speakers: list[Voice]):
        import espeakng_loader

        self.folder = tempfile.TemporaryDirectory(prefix="sasv-espeak-")
        home = Path(self.folder.name) / "espeak-ng-data"
        home.mkdir()
        for entry in Path(espeakng_loader.get_data_path()).iterdir():
            if entry.name == "voices":  # replaced by our own
                continue
            if os.name == "posix":
                (home / entry.name).symlink_to(entry)
            elif entry.is_dir():
                shutil.copytree(entry, home / entry.name)
            else:
                shutil.copy(entry, home / entry.name)
        (home / "voices" / "!v").mkdir(parents=True)
        for voice in speakers:
            (home / "voices" / "!v" / voice.name).write_text(voice.lines())
        self.library = ctypes.CDLL(espeakng_loader.get_library_path())
        self.rate = self.library.espeak_Initialize(2, 0, self.folder.name.encode(), 0)
        if self.rate <= 0:
            raise SasvError(
                "espeak-ng did not start; reinstall it: pip install --force-reinstall "
                "espeakng-loader"
            )
        self.chunks: list[np.ndarray] = []
        kind = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
        )
        self.callback = kind(
            self._receive
        )  # kept alive here, because the library holds no reference
        self.library.espeak_SetSynthCallback(self.callback)

    def _receive(self, samples, count: int, events) -> int:  # type: ignore[no-untyped-def]
        if count > 0 and samples:
            self.chunks.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
        return 0

    def say(self, text: str, voice: Voice, seed: int) -> np.ndarray:
        """Return the spoken sentence as float32 (samples,) at 16 kHz."""
        self.chunks.clear()
        if self.library.espeak_SetVoiceByName(f"{voice.accent}+{voice.name}".encode()) != 0:
            raise SasvError(f"espeak-ng has no accent {voice.accent}; reinstall espeakng-loader")
        self.library.espeak_SetParameter(1, voice.words_per_minute, 0)
        self.library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        data = text.encode()
        self.library.espeak_Synth(data, len(data) + 1, 0, 1, 0, 1, None, None)
        self.library.espeak_Synchronize()
        wave = np.concatenate(self.chunks).astype(np.float32) / 32768
        return soxr.resample(wave, self.rate, RATE)

    def close(self) -> None:
        """Release the library and its data."""
        self.library.espeak_Terminate()
        self.folder.cleanup()


def render(out: Path, speakers: int = 80, utterances: int = 12, seed: int = 0) -> Path:
    """Render the corpus as ``out/LibriSpeech/synthetic/SPEAKER/0/SPEAKER-0-NNNN.flac`` and return
    its root folder.

    Nothing is done if all files exist. espeak-ng keeps a state from one sentence to the next, so
    that all sentences are rendered in order by a separate process; the same arguments then give the
    same files.
    """
    root = out / "LibriSpeech"
    if all(path.exists() for _, path in _jobs(root, speakers, utterances, seed)):
        return root
    if importlib.util.find_spec("espeakng_loader") is None:
        raise MissingExtra("espeakng-loader", "demo", "rendering synthetic speech")
    words = [str(root), str(speakers), str(utterances), str(seed)]
    if subprocess.run([sys.executable, "-m", "sasv.corpora.synthetic", *words]).returncode != 0:
        raise SasvError(f"{root}: rendering failed; the reason is above")
    return root


def _jobs(root: Path, speakers: int, utterances: int, seed: int) -> list[tuple[Voice, Path]]:
    return [
        (voice, root / "synthetic" / voice.name / "0" / f"{voice.name}-0-{number:04}.flac")
        for voice in voices(speakers, seed)
        for number in range(utterances)
    ]


def _render(root: Path, speakers: int, utterances: int, seed: int) -> None:
    """Render all files in order. A little noise (35 dB SNR) avoids digital silence in the
    pauses.
    """
    jobs = _jobs(root, speakers, utterances, seed)
    engine = Espeak(voices(speakers, seed))
    try:
        with Progress("render", len(jobs)) as progress:
            for index, (voice, path) in enumerate(jobs):
                rng = np.random.default_rng([seed, index])
                wave = engine.say(sentence(rng), voice, seed=1 + index)
                level = float(np.sqrt(np.square(wave).mean()))
                noisy = wave + rng.standard_normal(len(wave)).astype(np.float32) * level * 10 ** (
                    -35 / 20
                )
                write_audio(path, 0.5 * noisy / max(float(np.abs(noisy).max()), 1e-6))
                progress.add()
    finally:
        engine.close()


if __name__ == "__main__":
    try:
        _render(Path(sys.argv[1]), *map(int, sys.argv[2:5]))
    except SasvError as error:
        sys.exit(str(error))
