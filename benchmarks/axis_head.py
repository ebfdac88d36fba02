"""Adds a spoof head for copies by FARGAN to the spoof axis of a CAM++: axis_head.py TABLE
OUT.safetensors --init MODEL --noises FOLDER --fargan PROGRAM [--where ROWS] [--utterances 450].

Crops of 2 s of the bona fide utterances in TABLE pass through the network: clean, through codecs,
with noise, through other channels (see channels), and as copies by FARGAN, the neural vocoder of
the Opus library, some of them through codecs and channels as well. A linear classifier of what the
present axis reads becomes one more head of it; nothing else changes. A calibration has to be made
anew and is removed.

At the end, the classifier is fitted to all corpora but one, for each, and for each kind of crop of
that one the percentage beyond the offset is printed, and the mean over the corpora: false alarms
for bona fide speech, and detections for copies. Development trials do not show this, because their
corpora are among those of the fit.
"""

import numpy as np
import torch

from channels import through_channel
from sasv.audio import read_audio
from sasv.checkpoints import load_checkpoint, save_checkpoint, spawn_encoder
from sasv.core.errors import SasvError
from sasv.encoders.campplus import Campplus
from sasv.tables import load_utterances
from sasv.vocoders import make_vocoder
from spoof_axis import CODECS, SAMPLES, Crop, Maker, fit, fitted, pick, pooled, training_parser

PLAIN_CONDITIONS = 2
"""Crops with noise or another level, and no codec."""
CHANNELS = 4
"""Bona fide crops through other channels; one of them also passes through a codec."""
COPIES = 2
CODED_COPIES = 3
"""Copies that pass through a codec or noise."""
WEIGHTS = {
    "clean": 3.0,
    "noise": 3.0,
    "mulaw": 3.0,
    "alaw": 3.0,
    "mp3": 3.0,
    "amr": 10.0,
    "opus": 10.0,
}
"""Weights of crops in the fit by their kind; 1 for others. AMR and Opus at low bit rates are the
codecs most like a neural vocoder."""
RIDGE = 0.02
"""Weight of the squared norm, halved, of the classifier of standardised inputs."""
SLOPE = 2.5
OFFSET = -1.5
"""The evidence of the head is SLOPE * max(0, OFFSET - score of the classifier). Ridge, weights, and
offset were chosen on corpora that were left out, the slope on development trials."""
CHECKED_OFFSETS = (OFFSET, -2.0, -2.5, -3.0)


class HeadMaker(Maker):
    """Makes the crops of an utterance."""

    def __init__(self, noises: str, fargan: str) -> None:
        super().__init__(noises)
        self.fargan = make_vocoder("fargan", fargan)

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
        copies = [fitted(self.fargan(pick(clean, rng), 16000)) for _ in range(COPIES)]
        copies.append(fitted(self.fargan(pick(channels, rng), 16000)))
        found += [("copy", wave) for wave in copies]
        for _ in range(CODED_COPIES):
            codec = CODECS[rng.integers(len(CODECS))]
            found.append((f"copy {codec}", self.condition(pick(copies, rng), codec, rng)))
        found.append(("copy channel", through_channel(pick(copies, rng), rng)))
        return [
            Crop(fitted(wave), kind, place >= bona_fide, None)
            for place, (kind, wave) in enumerate(found)
        ]


def fit_head(
    inputs: np.ndarray, kinds: np.ndarray, spoofed: np.ndarray
) -> tuple[np.ndarray, float]:
    """Return weight and bias of the classifier of inputs (crops, inputs)."""
    weight = np.array([WEIGHTS.get(kind, 1.0) for kind in kinds.tolist()])
    return fit(inputs, spoofed, weight, RIDGE)


def check(inputs: np.ndarray, kinds: np.ndarray, spoofed: np.ndarray, corpora: np.ndarray) -> None:
    """Print how much of the speech of a corpus that the fit does not know is beyond the offset."""
    names = np.unique(corpora).tolist()
    scores = np.empty(len(inputs))
    for name in names:
        left = corpora == name
        weight, bias = fit_head(inputs[~left], kinds[~left], spoofed[~left])
        scores[left] = inputs[left] @ weight + bias
    for offset in CHECKED_OFFSETS:
        print(f"percentage of crops beyond {offset:g}: mean, " + ", ".join(names))
        for kind in dict.fromkeys(kinds.tolist()):
            rows = [(kinds == kind) & (corpora == name) for name in names]
            shares = [100 * np.mean(scores[some] < offset) for some in rows]
            print(f"  {kind}: {np.mean(shares):.1f}, " + ", ".join(f"{one:.1f}" for one in shares))


def main() -> None:
    """Make the crops, fit the classifier, write the checkpoint."""
    parser = training_parser(__doc__)
    parser.add_argument("--init", required=True)
    parser.add_argument("--fargan", required=True, help="fargan_demo, which fargan.sh builds")
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
    make = HeadMaker(options.noises, options.fargan)
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
    check(statistics, kinds, spoofed, corpora)
    weight, bias = fit_head(statistics, kinds, spoofed)
    axis = checkpoint.encoder
    heads = axis["spoof_axis.bias"].numel() + 1
    checkpoint.specification.encoder_options["axis_heads"] = heads
    added = {"weight": -SLOPE * weight, "bias": SLOPE * (OFFSET - np.atleast_1d(bias))}
    for name, values in added.items():
        before = axis[f"spoof_axis.{name}"].float().reshape(-1)
        axis[f"spoof_axis.{name}"] = torch.cat((before, torch.from_numpy(values).float()))
    checkpoint.specification.decision = None
    checkpoint.specification.training["axis_head"] = (
        f"logistic regression on the input of the spoof axis, {len(spoofed)} crops of 2 s of "
        f"{len(rows)} utterances, {int(spoofed.sum())} of them copies by FARGAN"
    )
    save_checkpoint(options.out, checkpoint)


if __name__ == "__main__":
    main()
