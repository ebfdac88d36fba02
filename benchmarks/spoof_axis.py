"""Fits the spoof axis and the last layer of CAM++: spoof_axis.py TABLE OUT.safetensors
--noises FOLDER --fargan PROGRAM [--where ROWS] [--init NAME] [--utterances 520]
[--statistics FILE.npz].

Crops of 2 s of the bona fide utterances in TABLE pass through the network once: clean, through
telephone and internet codecs with and without noise, through other channels (see channels), and as
copies by WORLD in many settings, by the source-filter vocoder, by FARGAN, and, of some utterances,
by CARGAN, these also through codecs and channels.
A linear classifier of the mean and the standard deviation over time of the input of the last dense
block becomes one more dimension of the embedding (option ``inner_axis``), which is nearly always 0
for bona fide speech. The last linear layer is fitted to conditions (see last_layer); all layers
below it stay those of the network.
"""

import argparse
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pyworld
import torch

from channels import through_channel
from last_layer import refitted
from sasv.audio import read_audio
from sasv.audio.codecs import transmit
from sasv.batches.augment import Augmenter
from sasv.calibration.backend import logistic_regression
from sasv.checkpoints import Checkpoint, load_checkpoint, save_checkpoint, spawn_encoder
from sasv.core.errors import SasvError
from sasv.encoders.campplus import Campplus
from sasv.tables import load_utterances
from sasv.vocoders import make_vocoder

SAMPLES = 200 * 160 + 240
"""Of a crop of 2 s; 200 frames."""
NOISE_SHARE = 0.35
"""Share of the crops through a codec with noise or another level."""
CODECS = ("8khz", "mulaw", "alaw", "amr", "mp3", "opus", "resampled")
"""Bona fide speech passes through each; G.722 is kept for checks."""
PLAIN_CONDITIONS = 2
"""Crops with noise or another level, and no codec."""
WORLD_COPIES = 3
FARGAN_COPIES = 2
CODED_COPIES = 5
"""Copies that pass through a codec or noise."""
CHANNELS = 4
"""Bona fide crops through other channels; one of them also passes through a codec."""
CARGAN_EVERY = 3
"""Every so many utterances there is a copy by CARGAN, which takes two seconds for each second, and
of it one more that passes through a codec and one through a channel.
"""
WEIGHTS = {"amr": 3.0, "opus": 5.0, "cargan": 2.0}
"""Weights of crops in the fit by their kind; 1 for others. AMR and Opus at low bit rates are the
codecs most like vocoders."""
HELD_OUT = 0.12
"""Share of the utterances that the classifier is not fitted to, on which it is checked."""
RIDGE = 0.02
"""Weight of the squared norm, halved, of the classifier of standardised inputs."""
AXIS_SLOPE = 2.5
AXIS_OFFSET = -0.5
"""The axis is AXIS_SLOPE * max(0, AXIS_OFFSET - score of the classifier). Like RIDGE they were
chosen on development trials."""
FRAME_PERIODS = (3.0, 5.0, 5.0, 8.0, 10.0)
"""In ms, of WORLD; one is drawn."""


class Crop(NamedTuple):
    """A crop.

    Attributes:
        wave: (samples,).
        kind: for the checks: clean, a codec, noise, or the vocoder of a copy.
        spoofed: whether it is a copy.
        before: number, among the crops of the utterance, of the crop before the codec or noise; its
            own number if there is neither, None if that crop is unknown.
    """

    wave: np.ndarray
    kind: str
    spoofed: bool
    before: int | None


class Maker:
    """Makes the crops of an utterance."""

    def __init__(self, noises: str, fargan: str) -> None:
        self.noise = Augmenter(noises, "", snr_offset=10.0, level_range=10.0)
        self.source_filter = make_vocoder("source-filter")
        self.fargan = make_vocoder("fargan", fargan)
        self.cargan = make_vocoder("cargan")

    def __call__(self, path: str, number: int) -> list[Crop]:
        """Return the crops of the utterance with this number."""
        rng = np.random.default_rng([number, 23])
        places = (rng.uniform(0, 0.4), rng.uniform(0.6, 1))
        clean = [fitted(read_audio(path, samples=SAMPLES, place=place)) for place in places]
        found = [Crop(wave, "clean", False, place) for place, wave in enumerate(clean)]
        for codec in CODECS:
            drawn = rng.integers(len(clean))
            found.append(Crop(self.condition(clean[drawn], codec, rng), codec, False, drawn))
        for _ in range(PLAIN_CONDITIONS):
            drawn = rng.integers(len(clean))
            found.append(Crop(self.noise(clean[drawn], rng), "noise", False, drawn))
        channels = [through_channel(clean[place % 2], rng) for place in range(CHANNELS)]
        found += [Crop(wave, "channel", False, None) for wave in channels]
        codec = CODECS[rng.integers(len(CODECS))]
        coded = transmit(fitted(channels[0]), codec, rng)
        found.append(Crop(coded, f"channel {codec}", False, None))
        copied = [("world", world(pick(clean, rng), rng)) for _ in range(WORLD_COPIES)]
        copied.append(("source-filter", self.source_filter(pick(clean, rng), 16000, number)))
        copied += [("fargan", self.fargan(pick(clean, rng), 16000)) for _ in range(FARGAN_COPIES)]
        copies = [
            Crop(fitted(wave), kind, True, len(found) + place)
            for place, (kind, wave) in enumerate(copied)
        ]
        for _ in range(CODED_COPIES):
            copies.append(self.coded(copies[rng.integers(len(copied))], rng))
        copies += self.in_channels(channels, copies[: len(copied)], number, rng)
        if number % CARGAN_EVERY == 0:
            wave = self.cargan(pick(clean, rng), 16000)
            copy = Crop(fitted(wave), "cargan", True, len(found) + len(copies))
            copies += [copy, self.coded(copy, rng), in_channel(copy, rng)]
        return [crop._replace(wave=fitted(crop.wave)) for crop in found + copies]

    def in_channels(
        self, channels: list[np.ndarray], copies: list[Crop], number: int, rng: np.random.Generator
    ) -> list[Crop]:
        """Return copies of speech through other channels, and some of these copies through others,
        so that a channel tells nothing about the class.
        """
        made = [
            ("world", world(pick(channels, rng), rng)),
            ("source-filter", self.source_filter(pick(channels, rng), 16000, number)),
            ("fargan", self.fargan(pick(channels, rng), 16000)),
        ]
        found = [Crop(wave, f"{kind} channel", True, None) for kind, wave in made]
        # The copies by WORLD are first, those by FARGAN last.
        return [*found, in_channel(copies[0], rng), in_channel(copies[-1], rng)]

    def coded(self, copy: Crop, rng: np.random.Generator) -> Crop:
        """Return a copy through one of the codecs."""
        codec = CODECS[rng.integers(len(CODECS))]
        wave = self.condition(copy.wave, codec, rng)
        return Crop(wave, f"{copy.kind} {codec}", True, None)

    def condition(self, wave: np.ndarray, codec: str, rng: np.random.Generator) -> np.ndarray:
        """Return the wave through a codec, sometimes with noise or another level before."""
        if rng.random() < NOISE_SHARE:
            wave = self.noise(wave, rng)
        return transmit(wave.astype(np.float32), codec, rng)


def in_channel(copy: Crop, rng: np.random.Generator) -> Crop:
    """Return a copy through another channel."""
    return Crop(through_channel(copy.wave, rng), f"{copy.kind} channel", True, None)


def fitted(wave: np.ndarray) -> np.ndarray:
    """Return float32 samples, as many as a crop has."""
    return np.resize(np.asarray(wave, np.float32)[:SAMPLES], SAMPLES)


def pick(waves: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Return one of the waves."""
    return waves[rng.integers(len(waves))]


def world(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a copy by WORLD. Each setting is drawn by itself: the pitch estimator, the frame
    period, a coarser spectral envelope or aperiodicity, and another pitch.
    """
    wave = wave.astype(np.float64)
    period = float(rng.choice(FRAME_PERIODS))
    if rng.random() < 0.5:
        f0, times = pyworld.harvest(wave, 16000, frame_period=period)
    else:
        f0, times = pyworld.dio(wave, 16000, frame_period=period)
        f0 = pyworld.stonemask(wave, f0, times, 16000)
    envelope = pyworld.cheaptrick(wave, f0, times, 16000)
    aperiodicity = pyworld.d4c(wave, f0, times, 16000)
    size = 2 * (envelope.shape[1] - 1)
    if rng.random() < 0.4:
        coded = pyworld.code_spectral_envelope(envelope, 16000, int(rng.integers(24, 81)))
        envelope = pyworld.decode_spectral_envelope(coded, 16000, size)
    if rng.random() < 0.4:
        coded = pyworld.code_aperiodicity(aperiodicity, 16000)
        aperiodicity = pyworld.decode_aperiodicity(coded, 16000, size)
    if rng.random() < 0.4:
        f0 = f0 * 2 ** rng.uniform(-1 / 6, 1 / 6)
    return np.asarray(pyworld.synthesize(f0, envelope, aperiodicity, 16000, period))


@torch.no_grad()
def pooled(encoder: Campplus, crops: list[Crop]) -> tuple[np.ndarray, np.ndarray]:
    """Return the inputs of the classifier, and those of the last layer, each (crops, inputs)."""
    waves = torch.from_numpy(np.stack([crop.wave for crop in crops]))
    features, _ = encoder.features(waves)
    x, statistics = encoder.above_but_last(*encoder.below(features, None))
    return statistics.numpy(), encoder.last_statistics(x, None).numpy()


class Prepared(NamedTuple):
    """The crops of an utterance, after the network.

    Attributes:
        inputs, last_inputs: see ``pooled``.
        kinds, spoofed, before: of each crop, see ``Crop``; -1 stands for None.
    """

    inputs: np.ndarray
    last_inputs: np.ndarray
    kinds: list[str]
    spoofed: list[bool]
    before: list[int]


class Preparer:
    """Makes the crops of an utterance, and passes them through the network."""

    def __init__(self, init: str, noises: str, fargan: str) -> None:
        torch.set_num_threads(1)
        self.encoder = spawn_encoder(load_checkpoint(init)).eval()
        self.make = Maker(noises, fargan)

    def __call__(self, utterance: tuple[str, int]) -> Prepared:
        """Prepare the utterance with this path and number."""
        made = self.make(*utterance)
        return Prepared(
            *pooled(self.encoder, made),
            [crop.kind for crop in made],
            [crop.spoofed for crop in made],
            [-1 if crop.before is None else crop.before for crop in made],
        )


_workers: list[Any] = []


def _start(make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    _workers.append(make(*arguments))


def _work(given: Any) -> Any:
    return _workers[0](given)


def in_processes(
    make: Callable[..., Any], arguments: tuple[Any, ...], tasks: list[Any], processes: int
) -> Iterator[Any]:
    """Return what ``make(*arguments)``, once in each process, returns for each task, in order."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, _start, (make, arguments)) as pool:
        yield from pool.map(_work, tasks)


def fit(
    inputs: np.ndarray, kinds: np.ndarray, spoofed: np.ndarray, ridge: float = RIDGE
) -> tuple[np.ndarray, float]:
    """Return weight and bias of a classifier of inputs (crops, inputs), high for bona fide speech;
    both classes have the same weight.
    """
    centre = inputs.mean(axis=0)
    scale = inputs.std(axis=0) + 1e-5
    features = np.column_stack(((inputs - centre) / scale, np.ones(len(inputs))))
    weight = np.array([WEIGHTS.get(kind.split()[0], 1.0) for kind in kinds.tolist()])
    weight *= np.where(spoofed, 0.5 / weight[spoofed].sum(), 0.5 / weight[~spoofed].sum())
    solved = logistic_regression(features, (~spoofed).astype(float), weight, ridge_weight=ridge)
    slopes = solved[:-1] / scale
    return slopes, float(solved[-1] - slopes @ centre)


def check(scores: np.ndarray, kinds: np.ndarray, spoofed: np.ndarray) -> None:
    """Print how often each kind of crop is taken for the other class at the score 0."""
    for kind in dict.fromkeys(kinds.tolist()):
        rows = kinds == kind
        wrong = (scores[rows] < 0) != spoofed[rows]
        print(f"{kind}: {100 * wrong.mean():.1f} % of {rows.sum()} crops on the wrong side")


def with_axis(checkpoint: Checkpoint, weight: np.ndarray, bias: float) -> Checkpoint:
    """Return a CAM++ with this classifier as its spoof axis; its cm_score is the axis, negated."""
    options = checkpoint.specification.encoder_options
    options |= {"spoof_axis": True, "inner_axis": True, "frozen_blocks": 0}
    axis = AXIS_SLOPE * (AXIS_OFFSET - bias)
    checkpoint.encoder["spoof_axis.weight"] = torch.from_numpy(-AXIS_SLOPE * weight).float()
    checkpoint.encoder["spoof_axis.bias"] = torch.tensor(axis)
    last = torch.zeros(spawn_encoder(checkpoint).dimension)
    last[-1] = -1.0
    checkpoint.head = {"spoof_head.weight": last, "spoof_head.bias": torch.zeros(())}
    checkpoint.specification.decision = None
    checkpoint.specification.licence = "Apache-2.0"
    return checkpoint


def training_parser(about: str | None) -> argparse.ArgumentParser:
    """Return a parser of the options about the training speech and the result."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("table")
    parser.add_argument("out")
    parser.add_argument("--where", default="split=train;label=bonafide")
    parser.add_argument("--noises", required=True)
    return parser


def add_copies(parser: argparse.ArgumentParser) -> None:
    """Add the options about the copies."""
    parser.add_argument("--fargan", required=True, help="fargan_demo, which fargan.sh builds")
    parser.add_argument("--num-workers", type=int, default=2)


def main() -> None:
    """Make the crops, fit the classifier, write the checkpoint."""
    parser = training_parser(__doc__)
    parser.add_argument("--init", default="campplus-zh-en")
    add_copies(parser)
    parser.add_argument("--utterances", type=int, default=520)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--statistics", help="keep what the classifier is fitted to, for left_out.py"
    )
    options = parser.parse_args()
    checkpoint = load_checkpoint(options.init)
    if checkpoint.specification.encoder_options.get("spoof_axis"):
        raise SasvError(f"{options.init}: has a spoof axis already; give the network without it")
    encoder = spawn_encoder(checkpoint).eval()
    table = load_utterances(options.table, options.where)
    rng = np.random.default_rng(options.seed)
    rows = rng.permutation(len(table))[: options.utterances].tolist()
    tasks = [(table.path(row), row) for row in rows]
    arguments = (options.init, options.noises, options.fargan)
    inputs: list[np.ndarray] = []
    last_inputs: list[np.ndarray] = []
    kinds_found: list[str] = []
    copies: list[bool] = []
    before: list[int] = []
    of_utterance: list[int] = []
    for done, made in enumerate(in_processes(Preparer, arguments, tasks, options.num_workers), 1):
        inputs.append(made.inputs)
        last_inputs.append(made.last_inputs)
        before += [-1 if one < 0 else len(kinds_found) + one for one in made.before]
        of_utterance += [done] * len(made.kinds)
        kinds_found += made.kinds
        copies += made.spoofed
        if done % 50 == 0:
            print(f"crops of {done}/{len(rows)} utterances", flush=True)
    kinds = np.array(kinds_found)
    spoofed = np.array(copies)
    if options.statistics:
        corpora = np.array(table.table.texts("corpus"))[np.array(rows)[np.array(of_utterance) - 1]]
        given = {"kinds": kinds, "spoofed": spoofed, "corpora": corpora}
        np.savez(options.statistics, inputs=np.concatenate(inputs), **given)
    statistics = np.concatenate(inputs).astype(np.float64)
    checked = np.array(of_utterance) <= round(HELD_OUT * len(rows))
    weight, bias = fit(statistics[~checked], kinds[~checked], spoofed[~checked])
    check(statistics[checked] @ weight + bias, kinds[checked], spoofed[checked])
    weight, bias = fit(statistics, kinds, spoofed)
    checkpoint.encoder |= refitted(encoder, np.concatenate(last_inputs), np.array(before))
    training = checkpoint.specification.training
    training["spoof_axis"] = (
        f"logistic regression on the pooled input of the last dense block, {len(spoofed)} crops of "
        f"2 s of {len(rows)} utterances, {int(spoofed.sum())} of them copies"
    )
    training["last_layer"] = f"ridge regression on {sum(one >= 0 for one in before)} of these crops"
    save_checkpoint(options.out, with_axis(checkpoint, weight, bias))


if __name__ == "__main__":
    main()
