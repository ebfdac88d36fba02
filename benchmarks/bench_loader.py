"""The loader as used in training: augmented 2-second crops per second and core, compared with
reading whole files.
"""

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import numpy as np
import soundfile

from common import header, is_quick, measure, row
from sasv.audio import read_audio
from sasv.batches.augment import Augmenter
from sasv.batches.dataset import CropDataset, Item, collate, crop_samples
from sasv.tables import Table, Utterances

FRAMES = 200
RATE = 16000


def read_whole(
    path: str, start: int = 0, samples: int = 0, place: float | None = None, channel: str = "auto"
) -> np.ndarray:
    """Read a whole file, then cut it, as a simple loader does."""
    wave = read_audio(path)
    if place is not None:
        start = int(place * max(len(wave) - samples + 1, 1))
    return wave[start : start + samples]


def seconds_of(
    whole_speech: bool, whole_noise: bool, data: CropDataset, items: list[Item]
) -> float:
    """Return the seconds for reading all items, with files of speech and of noise read as a whole
    or not.
    """
    with ExitStack() as stack:
        if whole_speech:
            stack.enter_context(patch("sasv.batches.dataset.read_audio", read_whole))
        if whole_noise:
            stack.enter_context(patch("sasv.batches.augment.read_audio", read_whole))
        return measure(lambda: [data[item] for item in items])


def speech(path: Path, seconds: float, rng: np.random.Generator) -> None:
    """Write sound that resembles a voice, so that FLAC compresses it like speech."""
    time = np.arange(int(seconds * RATE)) / RATE
    wave = sum(np.sin(2 * np.pi * 130 * k * time) / k for k in range(1, 20))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.05 * wave + 0.003 * rng.standard_normal(len(time)), RATE)


def main(words: Sequence[str] | None = None) -> None:
    quick = is_quick(words, __doc__)
    pairs = 1 if quick else 25
    files = 1 if quick else 8
    rng = np.random.default_rng(0)
    items = [Item(2 * index, 2 * index + 1, 0, (0, index)) for index in range(pairs)]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for kind, count in (
            ("noise", files),
            ("speech", files),
            ("music", files),
        ):  # files of MUSAN take minutes
            for index in range(count):
                speech(root / "musan" / kind / f"{index}.wav", 8 if quick else 60, rng)
        for index in range(4):
            rir = np.exp(-np.arange(8000) / 1500) * rng.standard_normal(8000)
            (root / "rirs").mkdir(exist_ok=True)
            soundfile.write(root / "rirs" / f"{index}.wav", 0.1 * rir, RATE)
        for seconds in (8,) if quick else (8, 20):
            names = [f"{seconds}/{index}.flac" for index in range(2 * pairs)]
            for name in names:
                speech(root / name, seconds, rng)
            columns = {"utterance": range(len(names)), "path": names, "speaker": ["s"] * len(names)}
            utterances = Utterances(Table.build(columns, str(root / "u.tsv")))
            header(
                f"{2 * pairs} crops of {crop_samples(FRAMES) / RATE:.2f} s from {seconds} s of "
                "FLAC, one core"
            )
            for title, augmenter in (
                ("not augmented", None),
                ("seven augmentations", Augmenter(str(root / "musan"), str(root / "rirs"))),
                (
                    "... and half through Opus",
                    Augmenter(str(root / "musan"), str(root / "rirs"), ["opus"]),
                ),
            ):
                data = CropDataset(utterances, FRAMES, augmenter)
                whole = seconds_of(True, True, data, items)
                row(
                    f"all files whole, {title} (baseline)",
                    whole,
                    note=f"{2 * pairs / whole:.0f} crops/s",
                )
                for name, speech_too in (
                    (f"speech whole, {title}", True),
                    (f"crops, {title}", False),
                ):
                    if augmenter or not speech_too:
                        taken = seconds_of(speech_too, False, data, items)
                        row(name, taken, whole, f"{2 * pairs / taken:.0f} crops/s")
                if augmenter:
                    later = CropDataset(utterances, FRAMES, augmenter, augment_later=True)
                    taken = measure(
                        lambda later=later: collate([later[item] for item in items], later.samples)
                    )
                    name = f"crops, left to the device, {title}"
                    row(name, taken, whole, f"{2 * pairs / taken:.0f} crops/s")


if __name__ == "__main__":
    main()
