"""Trains the last dense block of CAM++ and what is above it: anchored_block.py TABLE
OUT.safetensors --noises FOLDER [--where ROWS] [--init NAME] [--utterances 330].

Crops of 2 s of the bona fide utterances in TABLE pass through the frozen layers once: clean,
through mild conditions, and as copies by WORLD and the source-filter vocoder. The last block then
learns from these activations: bona fide speech, in whatever condition, goes to where the original
model (the anchor) puts it without; copies leave the voiceprint of their source until the margin is
reached. A spoof head fitted to the new embeddings becomes one more dimension of them.
"""

import argparse
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyworld
import torch
from torch import Tensor
from torch.nn import functional as F

from sasv.audio import read_audio
from sasv.audio.codecs import transmit
from sasv.batches.augment import Augmenter
from sasv.calibration import fit_spoof_head
from sasv.checkpoints import Checkpoint, load_checkpoint, save_checkpoint, spawn_encoder
from sasv.encoders.campplus import Campplus
from sasv.scores import SpoofHead
from sasv.tables import load_utterances
from sasv.vocoders import make_vocoder

SAMPLES = 200 * 160 + 240
FROZEN_BLOCKS = 2
CODECS = ("8khz", "8khz", "alaw", "alaw", "resampled", "g722", "opus", "opus", "")
"""One is drawn; names that stand twice are drawn twice as often, and "" is none. AMR, MP3 and
mu-law are kept for the development trials."""
NOISE_SHARE = 0.35
HELD_OUT = 0.12
"""Share of the utterances that are not trained on."""
BONA_FIDE, CONDITION, COPY, COPY_CONDITION = range(4)


@dataclass(frozen=True)
class Phase:
    """A stretch of the training.

    Attributes:
        steps: of the optimiser.
        planned: steps after which the learning rate would be 0.
        warmup: steps in which it rises.
        crops: of each kind in a batch.
        margin: cosine with the voiceprint at which the pressure on copies ends.
        condition_weight: weight of bona fide speech through conditions.
    """

    steps: int
    planned: int
    warmup: int
    crops: tuple[int, int, int, int]
    margin: float
    condition_weight: float


PHASES = (
    Phase(110, 220, 10, (6, 16, 5, 5), 0.2, 1.0),
    Phase(130, 130, 5, (6, 21, 5, 0), 0.25, 3.0),
)
CROP_WEIGHT = 3.0
OTHER_WEIGHT = 0.3
"""Bona fide speech is drawn to the direction of the anchor's embedding of the clean crop plus this
share of its embedding of the other clean crop of the utterance."""
HEAD_WEIGHT = 0.2
HEAD_SCALE = 10.0
HEAD_RATE = 0.02
RATE = 1.2e-4
SLOPE = 10.0
START_RIDGE = 0.1
LAST_RIDGE = 0.01
LAST_WEIGHTS = (1.5, 2.0, 1.0, 1.0)
"""Of the four kinds of crops in the last regression of the last layer."""
SHARE = 0.8
"""Share of the trained weights in the result; the rest is that of the original ones."""
AXIS_SLOPE = 0.3
AXIS_OFFSET = 0.0
"""The axis is AXIS_SLOPE * max(0, AXIS_OFFSET - score of the head). Like the other constants they
were chosen on development trials."""


class Crops(NamedTuple):
    """Activations of crops below the block that is trained, and what they are.

    Attributes:
        inputs: (crops, channels, frames), half precision.
        kinds: (crops,) BONA_FIDE to COPY_CONDITION.
        sources: (crops,) number of the clean crop that a crop was made of; its own of a clean one.
        others: (crops,) number of the other clean crop of the utterance.
        utterances: (crops,) number of the utterance.
    """

    inputs: Tensor
    kinds: np.ndarray
    sources: np.ndarray
    others: np.ndarray
    utterances: np.ndarray


class Maker:
    """Makes the crops of an utterance."""

    def __init__(self, noises: str) -> None:
        self.noise = Augmenter(noises, "", snr_offset=10.0, level_range=10.0)
        self.source_filter = make_vocoder("source-filter")

    def __call__(self, path: str, number: int) -> list[tuple[np.ndarray, int, int]]:
        """Return (wave, kind, which of the two clean crops) of seven crops; the first two are
        clean.
        """
        rng = np.random.default_rng([number, 19])
        places = (rng.uniform(0, 0.4), rng.uniform(0.6, 1))
        clean = [fitted(read_audio(path, samples=SAMPLES, place=place)) for place in places]
        found = [(wave, BONA_FIDE, which) for which, wave in enumerate(clean)]
        found += [(self.condition(clean[which], rng), CONDITION, which) for which in (0, 0, 1)]
        if number % 2:
            copy = fitted(world(clean[0], rng))
        else:
            copy = fitted(self.source_filter(clean[0], 16000, number))
        return [*found, (copy, COPY, 0), (self.condition(copy, rng), COPY_CONDITION, 0)]

    def condition(self, wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the wave with noise or another level, and through a codec."""
        if rng.random() < NOISE_SHARE:
            wave = self.noise(wave, rng)
        codec = CODECS[rng.integers(len(CODECS))]
        return fitted(transmit(wave.astype(np.float32), codec, rng) if codec else wave)


def fitted(wave: np.ndarray) -> np.ndarray:
    """Return float32 samples, as many as a crop has."""
    return np.resize(np.asarray(wave, np.float32)[:SAMPLES], SAMPLES)


def world(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a copy by WORLD: as it is, with a coarser spectral envelope or aperiodicity, or with
    another pitch.
    """
    f0, envelope, aperiodicity = pyworld.wav2world(wave.astype(np.float64), 16000)
    size = 2 * (envelope.shape[1] - 1)
    kind = rng.integers(4)
    if kind == 1:
        coded = pyworld.code_spectral_envelope(envelope, 16000, int(rng.integers(24, 61)))
        envelope = pyworld.decode_spectral_envelope(coded, 16000, size)
    elif kind == 2:
        coded = pyworld.code_aperiodicity(aperiodicity, 16000)
        aperiodicity = pyworld.decode_aperiodicity(coded, 16000, size)
    elif kind == 3:
        f0 = f0 * 2 ** rng.uniform(-1 / 12, 1 / 12)
    return np.asarray(pyworld.synthesize(f0, envelope, aperiodicity, 16000))


@torch.no_grad()
def make_crops(encoder: Campplus, table: str, where: str, noises: str, count: int) -> Crops:
    """Make the crops of ``count`` of these bona fide utterances, and their activations."""
    utterances = load_utterances(table, where)
    make = Maker(noises)
    rows = np.random.default_rng(5).permutation(len(utterances))[:count]
    inputs = []
    kinds = []
    sources = []
    others = []
    for done, row in enumerate(rows.tolist()):
        crops = make(utterances.path(row), row)
        waves = torch.from_numpy(np.stack([wave for wave, _, _ in crops]))
        features, _ = encoder.features(waves)
        inputs.append(encoder.below(features, None)[0].half())
        first = len(crops) * done
        kinds += [kind for _, kind, _ in crops]
        sources += [first + which for _, _, which in crops]
        others += [first + 1 - which for _, _, which in crops]
        if done % 50 == 49:
            print(f"crops of {done + 1}/{len(rows)} utterances")
    each = len(kinds) // len(rows)
    return Crops(
        torch.cat(inputs),
        np.array(kinds),
        np.array(sources),
        np.array(others),
        np.repeat(np.arange(len(rows)), each),
    )


@torch.no_grad()
def embed(encoder: Campplus, inputs: Tensor) -> Tensor:
    """Return the embeddings (crops, dimension) of activations."""
    return torch.cat([encoder.above(part.float(), None) for part in inputs.split(8)])


def fit_last_layer(
    encoder: Campplus, inputs: Tensor, wanted: Tensor, weights: np.ndarray, ridge: float
) -> None:
    """Change the last linear layer by a ridge regression.

    Args:
        encoder: its statistics pooling is what the layer is fed.
        inputs: activations of crops.
        wanted: (crops, dimension) where their embeddings have to go; nan for where they are.
        weights: (crops,) of the crops in the regression.
        ridge: relative to the mean power of the statistics; the greater, the smaller the change.
    """
    pooled: list[Tensor] = []
    dense = encoder.xvector["dense"]
    hook = dense.register_forward_pre_hook(lambda _, given: pooled.append(given[0][:, :, 0]))
    now = embed(encoder, inputs).double()
    hook.remove()
    statistics = torch.cat(pooled).double()
    norm = dense.nonlinear.batchnorm
    left = torch.nan_to_num(wanted - now) * (norm.running_var + norm.eps).sqrt()
    shares = torch.from_numpy(weights / weights.sum())[:, None]
    gram = statistics.T @ (shares * statistics)
    added = ridge * gram.diagonal().mean() * torch.eye(len(gram))
    change = torch.linalg.solve(gram + added, statistics.T @ (shares * left))
    with torch.no_grad():
        dense.linear.weight[:, :, 0] += change.T.float()


def targets(anchor: Tensor, crops: Crops) -> Tensor:
    """Return where bona fide crops have to go (crops, dimension), and nan for copies."""
    unit = F.normalize(anchor, dim=1)
    direction = unit[crops.sources] + OTHER_WEIGHT * unit[crops.others]
    wanted = F.normalize(direction, dim=1) * anchor[crops.sources].norm(dim=1, keepdim=True)
    wanted[torch.from_numpy(crops.kinds >= COPY)] = torch.nan
    return wanted.double()


def train(encoder: Campplus, crops: Crops, seed: int) -> None:
    """Train what is above the frozen blocks; batch-norm statistics stay as they are."""
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    rng = np.random.default_rng(seed)
    utterances = rng.permutation(np.unique(crops.utterances))
    held_out = np.isin(crops.utterances, utterances[: int(HELD_OUT * len(utterances))])
    kinds = [np.flatnonzero((crops.kinds == kind) & ~held_out) for kind in range(4)]
    anchor = embed(encoder, crops.inputs)
    bona_fide = np.sort(np.concatenate(kinds[:COPY]))
    wanted = targets(anchor, crops)
    fit_last_layer(
        encoder, crops.inputs[bona_fide], wanted[bona_fide], np.ones(len(bona_fide)), START_RIDGE
    )
    before_anchor = anchor
    anchor = F.normalize(anchor, dim=1)
    parameters = [one for one in encoder.parameters() if one.requires_grad]
    for phase in PHASES:
        head = torch.zeros(anchor.shape[1] + 1, requires_grad=True)
        optimiser = torch.optim.Adam(
            [{"params": parameters}, {"params": [head], "lr": HEAD_RATE}],
            lr=RATE,
            betas=(0.9, 0.98),
        )
        for step in range(phase.steps):
            cosine = 0.5 * (1 + np.cos(np.pi * step / phase.planned))
            optimiser.param_groups[0]["lr"] = RATE * min(1, (step + 1) / phase.warmup) * cosine
            rows = np.concatenate(
                [rng.choice(of, n, replace=False) for of, n in zip(kinds, phase.crops)]
            )
            optimiser.zero_grad()
            drift = 0.0
            for part in np.array_split(rng.permutation(rows), max(1, len(rows) // 8)):
                value, kept = loss(encoder, crops, anchor, head, part, phase)
                value.backward()  # type: ignore[no-untyped-call]
                drift += kept
            torch.nn.utils.clip_grad_norm_(parameters, 5.0)
            optimiser.step()
            if step % 10 == 9:
                print(f"step {step + 1}: clean bona fide crops at cosine {drift:.3f} to the anchor")

    for key, value in encoder.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.lerp(before[key], value, SHARE))
    last = np.flatnonzero(~held_out)
    clean = torch.from_numpy(crops.kinds == BONA_FIDE)
    wanted[clean] = before_anchor[clean].double()
    weights = np.array(LAST_WEIGHTS)[crops.kinds[last]]
    fit_last_layer(encoder, crops.inputs[last], wanted[last], weights, LAST_RIDGE)


def loss(
    encoder: Campplus, crops: Crops, anchor: Tensor, head: Tensor, rows: np.ndarray, phase: Phase
) -> tuple[Tensor, float]:
    """Return the part of a batch's loss that falls to these crops, and of the mean cosine of clean
    bona fide crops with the anchor.
    """
    kinds = torch.from_numpy(crops.kinds[rows])
    unit = F.normalize(encoder.above(crops.inputs[rows].float(), None), dim=1)
    own = anchor[crops.sources[rows]]
    other = anchor[crops.others[rows]]
    to_own = (unit * own).sum(1)
    to_both = (unit * F.normalize(own + OTHER_WEIGHT * other, dim=1)).sum(1)
    to_voiceprint = (unit * F.normalize(own + other, dim=1)).sum(1)
    clean, condition = kinds == BONA_FIDE, kinds == CONDITION
    spoofed = kinds >= COPY
    bona_fide_crops = sum(phase.crops[:COPY])
    copies = sum(phase.crops[COPY:])
    pressure = F.softplus(SLOPE * (to_voiceprint - phase.margin)) / SLOPE
    logits = HEAD_SCALE * (unit @ head[:-1]) + head[-1]
    evidence = F.binary_cross_entropy_with_logits(logits, spoofed.float(), reduction="none")
    shares = torch.where(spoofed, 0.5 / copies, 0.5 / bona_fide_crops)
    value = (
        CROP_WEIGHT * ((1 - to_own) * clean).sum() / phase.crops[BONA_FIDE]
        + phase.condition_weight * ((1 - to_both) * condition).sum() / phase.crops[CONDITION]
        + (pressure * spoofed).sum() / copies
        + HEAD_WEIGHT * (shares * evidence).sum()
    )
    return value, float((to_own * clean).sum().detach()) / phase.crops[BONA_FIDE]


def main() -> None:
    """Make the crops, train, write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table")
    parser.add_argument("out")
    parser.add_argument("--where", default="split=train;label=bonafide")
    parser.add_argument("--noises", required=True)
    parser.add_argument("--init", default="campplus-zh-en")
    parser.add_argument("--utterances", type=int, default=330)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    checkpoint = load_checkpoint(options.init)
    checkpoint.specification.encoder_options["frozen_blocks"] = FROZEN_BLOCKS
    encoder = spawn_encoder(checkpoint).eval()
    torch.manual_seed(options.seed)
    crops = make_crops(encoder, options.table, options.where, options.noises, options.utterances)
    train(encoder, crops, options.seed)
    spoofed = crops.kinds >= COPY
    head = fit_spoof_head(embed(encoder, crops.inputs).numpy(), spoofed)
    checkpoint.encoder = encoder.state_dict()
    training = checkpoint.specification.training
    training["anchored_block"] = f"all above block {FROZEN_BLOCKS}, on {len(spoofed)} crops of 2 s"
    training["spoof_axis"] = f"fitted to these crops, {int(spoofed.sum())} of them spoofed"
    save_checkpoint(options.out, with_axis(checkpoint, head))


def with_axis(checkpoint: Checkpoint, head: SpoofHead) -> Checkpoint:
    """Return a CAM++ with this head as its spoof axis; its cm_score is the axis, negated. Nothing
    of it is frozen for those who train on.
    """
    size = len(head.weight)
    weight = torch.from_numpy(-AXIS_SLOPE * head.weight).float()
    checkpoint.encoder["spoof_axis.weight"] = weight
    checkpoint.encoder["spoof_axis.bias"] = torch.tensor(AXIS_SLOPE * (AXIS_OFFSET - head.bias))
    last = torch.zeros(size + 1)
    last[-1] = -1.0
    checkpoint.head = {"spoof_head.weight": last, "spoof_head.bias": torch.zeros(())}
    checkpoint.specification.encoder_options |= {"spoof_axis": True, "frozen_blocks": 0}
    checkpoint.specification.decision = None
    checkpoint.specification.licence = "Apache-2.0"
    return checkpoint


if __name__ == "__main__":
    main()
