"""Fits the spoof axis and the last layer of CAM++: spoof_axis.py TABLE OUT.safetensors
--noises FOLDER [--where ROWS] [--init NAME] [--utterances 800].

Crops of 2 s of the bona fide utterances in TABLE pass through the network once: clean, through
telephone and internet codecs with and without noise, and as copies by WORLD in many settings and by
the source-filter vocoder, these also through codecs. A linear classifier of the mean and the
standard deviation over time of the input of the last dense block becomes one more dimension of the
embedding (option ``inner_axis``), which is nearly always 0 for bona fide speech. The last linear
layer is fitted to conditions (see last_layer); all layers below it stay those of the network.
"""

import argparse
from typing import NamedTuple

import numpy as np
import pyworld
import torch

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
CODED_COPIES = 3
"""Copies that pass through a codec or noise."""
HELD_OUT = 0.12
"""Share of the utterances that the classifier is not fitted to, on which it is checked."""
RIDGE = 0.002
"""Weight of the squared norm, halved, of the classifier of standardised inputs."""
AXIS_SLOPE = 1.6
AXIS_OFFSET = 0.0
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

    def __init__(self, noises: str) -> None:
        self.noise = Augmenter(noises, "", snr_offset=10.0, level_range=10.0)
        self.source_filter = make_vocoder("source-filter")

    def __call__(self, path: str, number: int) -> list[Crop]:
        """Return the crops of the utterance with this number, as many for each utterance."""
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
        copied = [("world", world(pick(clean, rng), rng)) for _ in range(WORLD_COPIES)]
        copied.append(("source-filter", self.source_filter(pick(clean, rng), 16000, number)))
        copies = [
            Crop(fitted(wave), kind, True, len(found) + place)
            for place, (kind, wave) in enumerate(copied)
        ]
        for _ in range(CODED_COPIES):
            copy = copies[rng.integers(WORLD_COPIES + 1)]
            codec = CODECS[rng.integers(len(CODECS))]
            wave = self.condition(copy.wave, codec, rng)
            copies.append(Crop(wave, f"{copy.kind} {codec}", True, None))
        return [crop._replace(wave=fitted(crop.wave)) for crop in found + copies]

    def condition(self, wave: np.ndarray, codec: str, rng: np.random.Generator) -> np.ndarray:
        """Return the wave through a codec, sometimes with noise or another level before."""
        if rng.random() < NOISE_SHARE:
            wave = self.noise(wave, rng)
        return transmit(wave.astype(np.float32), codec, rng)


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


def fit(
    inputs: np.ndarray,
    spoofed: np.ndarray,
    weight: np.ndarray | None = None,
    ridge: float = RIDGE,
) -> tuple[np.ndarray, float]:
    """Return weight and bias of a classifier of inputs (crops, inputs), high for bona fide speech;
    both classes have the same weight, and ``weight`` is that of a crop within its class.
    """
    centre = inputs.mean(axis=0)
    scale = inputs.std(axis=0) + 1e-5
    features = np.column_stack(((inputs - centre) / scale, np.ones(len(inputs))))
    if weight is None:
        weight = np.ones(len(inputs))
    weight = weight * np.where(spoofed, 0.5 / weight[spoofed].sum(), 0.5 / weight[~spoofed].sum())
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


def main() -> None:
    """Make the crops, fit the classifier, write the checkpoint."""
    parser = training_parser(__doc__)
    parser.add_argument("--init", default="campplus-zh-en")
    parser.add_argument("--utterances", type=int, default=800)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    checkpoint = load_checkpoint(options.init)
    if checkpoint.specification.encoder_options.get("spoof_axis"):
        raise SasvError(f"{options.init}: has a spoof axis already; give the network without it")
    encoder = spawn_encoder(checkpoint).eval()
    table = load_utterances(options.table, options.where)
    make = Maker(options.noises)
    rng = np.random.default_rng(options.seed)
    rows = rng.permutation(len(table))[: options.utterances].tolist()
    inputs: list[np.ndarray] = []
    last_inputs: list[np.ndarray] = []
    before: list[int] = []
    crops: list[tuple[str, bool]] = []
    for done, row in enumerate(rows, 1):
        made = make(table.path(row), row)
        for kept, found in zip((inputs, last_inputs), pooled(encoder, made)):
            kept.append(found)
        before += [-1 if crop.before is None else len(crops) + crop.before for crop in made]
        crops += [(crop.kind, crop.spoofed) for crop in made]
        if done % 50 == 0:
            print(f"crops of {done}/{len(rows)} utterances", flush=True)
    statistics = np.concatenate(inputs).astype(np.float64)
    kinds = np.array([kind for kind, _ in crops])
    spoofed = np.array([copy for _, copy in crops])
    of_utterance = np.repeat(np.arange(len(rows)), len(crops) // len(rows))
    checked = of_utterance < round(HELD_OUT * len(rows))
    weight, bias = fit(statistics[~checked], spoofed[~checked])
    check(statistics[checked] @ weight + bias, kinds[checked], spoofed[checked])
    weight, bias = fit(statistics, spoofed)
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
