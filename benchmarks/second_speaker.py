"""How well two people who speak one after the other are told from one person: second_speaker.py
TABLE MODEL --noises FOLDER [--where ROWS] [--people 25].

One long utterance of each speaker passes through each condition and is cut into windows of 2 s of
speech. Stretches of one speaker's windows are recordings of one person; stretches of two speakers,
one after the other, are recordings of two. For both, the agreement of a recording with itself is
compared with --limit.
"""

import argparse
from itertools import pairwise

import numpy as np
import pyworld

from sasv.audio import RATE, read_audio
from sasv.audio.codecs import transmit
from sasv.audio.speech import net_speech, shorten_pauses
from sasv.batches.augment import at_snr, audio_files
from sasv.embeddings.model import load_model
from sasv.runtime.embedder import SPEAKER_SECONDS, Embedder, self_agreement
from sasv.scores import unit
from sasv.tables import load_utterances
from sasv.vocoders import make_vocoder

SECONDS = 14
LEAST_SECONDS = 12
MAX_PAUSE = 0.5
CONDITIONS = ("clean", "mulaw", "amr", "mp3", "noise 10 dB", "mulaw, noise 15 dB", "world")
"""Every third speaker is copied by WORLD."""
SHARES = ((1, 1), (2, 1), (3, 3), (5, 1), (1, 5))
"""Windows of the first and of the second person."""
LENGTHS = (2, 3, 5)
"""Windows of one person, besides all of them."""
SIMILAR_PITCH = 0.2
"""Largest difference of the logarithms of two median pitches that counts as the same."""


def conditioned(
    wave: np.ndarray, condition: str, noises: list[str], rng: np.random.Generator, seed: int
) -> np.ndarray:
    """Return a recording, (samples,), in a condition."""
    if condition == "world":
        return make_vocoder("world").resynthesise(wave, seed)
    codec, _, level = condition.partition("noise ")
    if level:
        noise = np.resize(read_audio(noises[rng.integers(len(noises))]), len(wave))
        noise = np.roll(noise, rng.integers(len(wave))).astype(np.float32)
        wave = (wave + at_snr(wave, noise, float(level.removesuffix(" dB")))).astype(np.float32)
    codec = codec.rstrip(", ")
    return wave if codec in ("", "clean") else transmit(wave, codec, rng)


def windows_of(model: Embedder, wave: np.ndarray) -> np.ndarray:
    """Return the directions of the embeddings of windows, (windows, dimension)."""
    wave = np.asarray(wave, np.float32)
    speech = shorten_pauses(wave, net_speech(wave, RATE).spans, MAX_PAUSE)
    size = round(SPEAKER_SECONDS * RATE)
    count = len(speech) // size
    if not count:
        return np.zeros((0, model.dimension))
    return unit(model.embed_whole(np.split(speech[: count * size], count)))


def pitch_of(wave: np.ndarray) -> float:
    """Return the median pitch of the first six seconds, in Hz; NaN if there is none."""
    pitch, _ = pyworld.dio(wave[: 6 * RATE].astype(np.float64), RATE, frame_period=10.0)
    return float(np.median(pitch[pitch > 0])) if (pitch > 0).any() else np.nan


def of_one(windows: np.ndarray) -> list[float]:
    """Return the agreements of recordings of one person: stretches of several lengths."""
    return [
        self_agreement(windows[start:stop])
        for length in (*LENGTHS, len(windows))
        for start, stop in pairwise(range(0, len(windows) + 1, length))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table")
    parser.add_argument("model")
    parser.add_argument("--noises", required=True)
    parser.add_argument("--where", default="split=train;corpus=librispeech")
    parser.add_argument("--people", type=int, default=25)
    parser.add_argument("--limit", type=float, default=0.4)
    options = parser.parse_args()
    utterances = load_utterances(options.table, options.where)
    noises = audio_files(options.noises)
    model = load_model(options.model)
    seconds = utterances.seconds
    if seconds is None:
        parser.error(f"{options.table} has no column seconds")
    speakers, _ = utterances.speakers
    rows = np.flatnonzero(seconds >= LEAST_SECONDS)
    paths: dict[int, str] = {}
    for row in np.random.default_rng(20).permutation(rows):
        paths.setdefault(speakers[row], utterances.paths[row])
    heard: dict[str, dict[int, np.ndarray]] = {name: {} for name in CONDITIONS}
    pitches = []
    for person, path in enumerate(list(paths.values())[: options.people]):
        wave = read_audio(path, samples=SECONDS * RATE)
        pitches.append(pitch_of(wave))
        for place, condition in enumerate(heard):
            if condition != "world" or person % 3 == 0:
                rng = np.random.default_rng([person, place])
                found = windows_of(model, conditioned(wave, condition, noises, rng, person))
                if len(found) >= max(LENGTHS) - 2:
                    heard[condition][person] = found
    for condition, people in heard.items():
        one = np.array([value for windows in people.values() for value in of_one(windows)])
        print(f"{condition}, limit {options.limit:g}: {len(people)} people")
        print("  one person taken for several:")
        print(f"  {np.sum(one < options.limit)} of {len(one)} recordings, lowest {one.min():.2f}")
        for first, second in SHARES if condition != "world" else ():
            caught = {True: [], False: []}  # by whether the pitch is similar
            for left, before in people.items():
                for right, after in people.items():
                    enough = min(len(before), len(after)) >= max(first, second)
                    if left != right and enough:
                        two = np.concatenate([before[:first], after[-second:]])
                        near = abs(np.log(pitches[left] / pitches[right])) < SIMILAR_PITCH
                        caught[near].append(self_agreement(two) < options.limit)
            near = caught[True]
            every = near + caught[False]
            print(
                f"  {2 * first} s and {2 * second} s of two people: {100 * np.mean(every):.1f} % "
                f"of {len(every)} found, {100 * np.mean(near):.1f} % of {len(near)} with a similar "
                "pitch"
            )


if __name__ == "__main__":
    main()
