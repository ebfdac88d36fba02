"""Adds spoof heads for copies by neural vocoders to the spoof axis of a CAM++: axis_heads.py TABLE
OUT.safetensors --init MODEL --noises FOLDER --fargan PROGRAM --cache FOLDER [--where ROWS].

Crops of 2 s of the bona fide utterances in TABLE pass through the network: clean, through codecs,
with noise, through other channels (see channels), and as copies by two neural vocoders: FARGAN,
that of the Opus library, and CARGAN. For each vocoder, a linear classifier of what the present axis
reads becomes one more head of it; nothing else changes. A calibration has to be made anew and is
removed.

A head is for copies without a codec: among its copies are none through codecs, so that a codec
counts as a sign of bona fide speech, which passes through codecs all the time. Copies through
codecs are left to the head that is there.

Its offset is chosen on classifiers fitted to all corpora but one, for each: at most 1 % of any kind
of bona fide crops of that one may be taken for copies. For each kind, the percentages are printed,
false alarms for bona fide speech and detections for copies. Development trials do not show them,
because their corpora are among those of the fit.
"""

from pathlib import Path

import numpy as np
import torch

from channels import through_channel
from sasv.audio import read_audio
from sasv.checkpoints import Checkpoint, load_checkpoint, save_checkpoint, spawn_encoder
from sasv.core.errors import SasvError
from sasv.core.files import atomic_path
from sasv.encoders.campplus import Campplus
from sasv.tables import load_utterances
from sasv.vocoders import make_vocoder
from spoof_axis import CODECS, SAMPLES, Crop, Maker, fit, fitted, pick, pooled, training_parser

VOCODERS = ("fargan", "cargan")
PLAIN_CONDITIONS = 2
"""Crops with noise or another level, and no codec."""
CHANNELS = 4
"""Bona fide crops through other channels; one of them also passes through a codec."""
WEIGHTS = {"opus": 10.0, "channel": 3.0}
"""Weights of crops in the fit by their kind; 1 for others. Opus at low bit rates is the codec most
like a neural vocoder.
"""
RIDGE = 0.005
"""Weight of the squared norm, halved, of a classifier of standardised inputs."""
FALSE_ALARMS = 0.01
"""The offset of a head is the highest at which, of each kind of bona fide crops of corpora that the
classifier was not fitted to, at most this share is taken for copies.
"""
SLOPE = 2.5
"""The evidence of a head is SLOPE * max(0, offset - score of its classifier). Ridge, weights, and
slope were chosen on corpora that were left out and on development trials.
"""


class HeadMaker(Maker):
    """Makes the crops of an utterance."""

    def __init__(self, noises: str, fargan: str, cache: str) -> None:
        super().__init__(noises)
        self.fargan = make_vocoder("fargan", fargan)
        self.cargan = make_vocoder("cargan")
        self.cache = Path(cache)

    def __call__(self, path: str, number: int) -> list[Crop]:
        """Return the crops of the utterance with this number."""
        rng = np.random.default_rng([number, 57])
        places = (rng.uniform(0, 0.4), rng.uniform(0.6, 1))
        clean = [fitted(read_audio(path, samples=SAMPLES, place=place)) for place in places]
        channels = [through_channel(clean[place % 2], rng) for place in range(CHANNELS)]
        found = [("clean", wave) for wave in clean]
        found += [(codec, self.condition(pick(clean, rng), codec, rng)) for codec in CODECS]
        found += [("noise", self.noise(pick(clean, rng), rng)) for _ in range(PLAIN_CONDITIONS)]
        found += [("channel", wave) for wave in channels]
        codec = CODECS[rng.integers(len(CODECS))]
        found.append(("channel and codec", self.condition(pick(channels, rng), codec, rng)))
        bona_fide = len(found)
        copies = [("fargan", self.fargan(wave, 16000)) for wave in (*clean, pick(channels, rng))]
        copies.append(("cargan", self.cargan_copy(clean[number % 2], number)))
        found += copies
        for vocoder, wave in copies[1:]:
            found.append((f"{vocoder} channel", through_channel(fitted(wave), rng)))
        return [
            Crop(fitted(wave), kind, place >= bona_fide, None)
            for place, (kind, wave) in enumerate(found)
        ]

    def cargan_copy(self, wave: np.ndarray, number: int) -> np.ndarray:
        """Return a copy by CARGAN, which takes two seconds for each second of speech and is kept
        for the next model.
        """
        path = self.cache / f"{number}.npy"
        if not path.exists():
            with atomic_path(path) as temporary:
                np.save(temporary, fitted(self.cargan(wave, 16000, number)))
        return np.asarray(np.load(path))


def fit_head(
    vocoder: str, inputs: np.ndarray, kinds: np.ndarray, spoofed: np.ndarray
) -> tuple[np.ndarray, float]:
    """Return weight and bias of the classifier of inputs (crops, inputs) for one vocoder."""
    used = ~spoofed | np.char.startswith(kinds, vocoder)
    weight = np.array([WEIGHTS.get(kind, 1.0) for kind in kinds[used].tolist()])
    return fit(inputs[used], spoofed[used], weight, RIDGE)


def choose_offset(
    vocoder: str, inputs: np.ndarray, kinds: np.ndarray, spoofed: np.ndarray, corpora: np.ndarray
) -> float:
    """Return the offset of the head for a vocoder, by classifiers fitted to all corpora but one.
    Print how much of the speech of the corpus that was left out is beyond it.
    """
    names = np.unique(corpora).tolist()
    scores = np.empty(len(inputs))
    for name in names:
        left = corpora == name
        weight, bias = fit_head(vocoder, inputs[~left], kinds[~left], spoofed[~left])
        scores[left] = inputs[left] @ weight + bias

    def shares(kind: str, offset: float) -> list[float]:
        rows = [(kinds == kind) & (corpora == name) for name in names]
        return [float(np.mean(scores[some] < offset)) for some in rows]

    bona_fide = np.unique(kinds[~spoofed]).tolist()
    offset = 0.0
    while max(np.mean(shares(kind, offset)) for kind in bona_fide) > FALSE_ALARMS:
        offset -= 0.1
    print(f"{vocoder}: percentage of crops beyond {offset:.1f}: mean, " + ", ".join(names))
    for kind in dict.fromkeys(kinds.tolist()):
        found = [100 * share for share in shares(kind, offset)]
        print(f"  {kind}: {np.mean(found):.1f}, " + ", ".join(f"{one:.1f}" for one in found))
    return offset


def add_head(checkpoint: Checkpoint, weight: np.ndarray, bias: float, offset: float) -> None:
    """Add a classifier to the heads of the axis."""
    axis = checkpoint.encoder
    heads = axis["spoof_axis.bias"].numel() + 1
    checkpoint.specification.encoder_options["axis_heads"] = heads
    added = {"weight": -SLOPE * weight, "bias": SLOPE * (offset - np.atleast_1d(bias))}
    for name, values in added.items():
        before = axis[f"spoof_axis.{name}"].float().reshape(-1)
        axis[f"spoof_axis.{name}"] = torch.cat((before, torch.from_numpy(values).float()))


def main() -> None:
    """Make the crops, fit the classifiers, write the checkpoint."""
    parser = training_parser(__doc__)
    parser.add_argument("--init", required=True)
    parser.add_argument("--fargan", required=True, help="fargan_demo, which fargan.sh builds")
    parser.add_argument("--cache", required=True, help="folder for the copies by CARGAN")
    parser.add_argument("--utterances", type=int, default=450)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    checkpoint = load_checkpoint(options.init)
    if not checkpoint.specification.encoder_options.get("inner_axis"):
        raise SasvError(f"{options.init}: has no inner spoof axis; see spoof_axis.py")
    encoder = spawn_encoder(checkpoint).eval()
    assert isinstance(encoder, Campplus)
    table = load_utterances(options.table, options.where)
    names = table.table.texts("corpus")
    make = HeadMaker(options.noises, options.fargan, options.cache)
    rng = np.random.default_rng(options.seed)
    rows = rng.permutation(len(table))[: options.utterances].tolist()
    inputs: list[np.ndarray] = []
    crops: list[tuple[str, bool, str]] = []
    for done, row in enumerate(rows, 1):
        made = make(table.path(row), row)
        inputs.append(pooled(encoder, made)[0])
        crops += [(crop.kind, crop.spoofed, names[row]) for crop in made]
        if done % 50 == 0:
            print(f"crops of {done}/{len(rows)} utterances", flush=True)
    statistics = np.concatenate(inputs).astype(np.float64)
    kinds, spoofed, corpora = (np.array(values) for values in zip(*crops))
    for vocoder in VOCODERS:
        offset = choose_offset(vocoder, statistics, kinds, spoofed, corpora)
        weight, bias = fit_head(vocoder, statistics, kinds, spoofed)
        add_head(checkpoint, weight, bias, offset)
    checkpoint.specification.decision = None
    checkpoint.specification.training["axis_heads"] = (
        f"logistic regressions on the input of the spoof axis, {len(spoofed)} crops of 2 s of "
        f"{len(rows)} utterances, {int(spoofed.sum())} of them copies by {' or '.join(VOCODERS)}"
    )
    save_checkpoint(options.out, checkpoint)


if __name__ == "__main__":
    main()
