"""Distils a small CAM++ from a large one: distil.py TABLE OUT.safetensors --noises FOLDER --cache
FOLDER [--where ROWS] [--teacher NAME] [--crops 12000] [--steps 6000] [--layers 12 3 1].

The student takes the convolutions and the first dense block of the teacher over and keeps them as
they are, so that their outputs are computed once. What is above them has fewer layers. Its linear
layers are first fitted to those of the teacher by regression; then all of it learns, for crops of
speech in any condition, copies by vocoders included, to give the embedding that the teacher gives,
spoof axis included. No labels are used.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soxr
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anchored_block import CODECS, NOISE_SHARE, world
from sasv.audio import read_audio
from sasv.audio.codecs import transmit
from sasv.batches.augment import Augmenter
from sasv.checkpoints import Checkpoint, load_checkpoint, save_checkpoint, spawn_encoder
from sasv.encoders import make_encoder
from sasv.encoders.campplus import SEGMENT, Campplus
from sasv.frontends.masks import Segments
from sasv.tables import load_utterances
from sasv.vocoders import make_vocoder

RATE = 16000
FROZEN_BLOCKS = 1
LENGTHS = (200, 200, 300)
"""Numbers of frames of a crop; the crops of a chunk have the same."""
CHUNK = 32
KINDS = ("clean", "condition", "copy", "copy in a condition", "two voices")
KIND_SHARES = (0.42, 0.22, 0.18, 0.08, 0.1)
VOCODERS = ("world", "world", "source-filter", "source-filter", "griffin-lim")
OTHER_SPEED = 0.5
"""Share of the voices that are played faster or slower, which makes other voices of them."""
SPEEDS = (0.8, 1.25)
BATCH = 32
CHUNKS_IN_BATCH = 8
SHOWN = 100
"""Steps between two lines of the log."""
WEIGHT_DECAY = 0.01
FRAME_RIDGE = 1e-3
LAST_RIDGE = 0.03
NORM_BIAS = 0.5
"""Bias of a batch norm before a ReLU that linear regression is fitted to."""
FITTED_CHUNKS = 30
"""Chunks that the layers between the blocks are fitted to."""
PEAK_RATE = 1e-3
WARMUP = 30
RELATIONS = 5.0
"""Weight of the squared error of the cosines between the crops of a batch."""


class Chunk(NamedTuple):
    """Crops of the same length.

    Attributes:
        inputs: (crops, channels, frames) what the teacher's second dense block is fed, half
            precision.
        targets: (crops, dimension) embeddings of the teacher.
    """

    inputs: Tensor
    targets: Tensor


class CropMaker:
    """Draws crops of training speech."""

    def __init__(self, paths: Sequence[str], noises: str) -> None:
        self.paths = paths
        self.noise = Augmenter(noises, "", snr_offset=10.0, level_range=10.0)
        self.vocoders = {name: make_vocoder(name) for name in set(VOCODERS) - {"world"}}

    def __call__(self, samples: int, rng: np.random.Generator) -> np.ndarray:
        """Return a crop of this many samples."""
        kind = KINDS[rng.choice(len(KINDS), p=KIND_SHARES)]
        wave = self.voice(samples, rng)
        if kind == "two voices":
            other = self.voice(samples, rng)
            place = int(rng.uniform(0.3, 0.7) * samples)
            return np.concatenate((wave[:place], other[place:]))
        if kind.startswith("copy"):
            wave = np.resize(self.copy(wave, rng), samples).astype(np.float32)
        if kind.endswith("condition"):
            wave = self.condition(wave, rng)
        return wave

    def voice(self, samples: int, rng: np.random.Generator) -> np.ndarray:
        """Return bona fide speech, or the same faster or slower."""
        path = self.paths[rng.integers(len(self.paths))]
        speed = 1.0
        if rng.random() < OTHER_SPEED:
            speed = rng.uniform(*SPEEDS)
        wave = read_audio(path, samples=round(samples * speed), place=rng.random())
        if speed != 1:
            wave = soxr.resample(wave, RATE * speed, RATE)
        return np.resize(wave, samples)

    def copy(self, wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return a copy by one of the vocoders."""
        name = VOCODERS[rng.integers(len(VOCODERS))]
        if name == "world":
            return world(wave, rng)
        return self.vocoders[name](wave, RATE, int(rng.integers(2**31)))

    def condition(self, wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the wave with noise or another level, and through a codec."""
        if rng.random() < NOISE_SHARE:
            wave = self.noise(wave, rng)
        codec = CODECS[rng.integers(len(CODECS))]
        return transmit(wave, codec, rng) if codec else wave


def frozen(checkpoint: Checkpoint) -> Campplus:
    """Return the encoder in evaluation mode, with the first dense block and all below it frozen."""
    specification = checkpoint.specification
    options = specification.encoder_options | {"frozen_blocks": FROZEN_BLOCKS}
    changed = replace(specification, encoder_options=options)
    return spawn_encoder(replace(checkpoint, specification=changed)).eval()


@torch.no_grad()
def make_chunk(teacher: Campplus, make: CropMaker, number: int) -> Chunk:
    """Make the crops of one chunk."""
    rng = np.random.default_rng([number, 23])
    samples = LENGTHS[number % len(LENGTHS)] * 160 + 240
    waves = np.stack([make(samples, rng) for _ in range(CHUNK)])
    features, _ = teacher.features(torch.from_numpy(waves.astype(np.float32)))
    inputs, _ = teacher.below(features, None)
    targets = torch.cat([teacher.above(part, None) for part in inputs.split(8)])
    return Chunk(inputs.half(), targets)


def load_chunks(teacher: Campplus, make: CropMaker, folder: Path, crops: int) -> list[Chunk]:
    """Return chunks of at least this many crops; those that the folder lacks are made first."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for number in range(-(-crops // CHUNK)):
        path = folder / f"{number}.pt"
        if not path.exists():
            part = path.with_suffix(".part")
            torch.save(make_chunk(teacher, make, number)._asdict(), part)
            part.rename(path)
            if number % 10 == 9:
                print(f"{(number + 1) * CHUNK} of {crops} crops", flush=True)
        found.append(Chunk(**torch.load(path, weights_only=True)))
    return found


def start(teacher: Checkpoint, layers: tuple[int, ...]) -> Checkpoint:
    """Return a student with these numbers of layers in the dense blocks, which has the teacher's
    weights where its layers are the same.
    """
    specification = teacher.specification
    options = specification.encoder_options | {
        "layers": list(layers),
        "frozen_blocks": FROZEN_BLOCKS,
    }
    specification = replace(specification, encoder_options=options, decision=None, training={})
    fresh = make_encoder(
        specification.encoder, options, specification.frontend, specification.frontend_options
    )
    weights = fresh.state_dict()
    for name, value in weights.items():
        if teacher.encoder[name].shape == value.shape and not name.startswith("xvector.block3"):
            weights[name] = teacher.encoder[name].float()
    return replace(teacher, specification=specification, encoder=weights)


@torch.no_grad()
def fit_transits(student: Campplus, teacher: Campplus, chunks: list[Chunk]) -> None:
    """Fit the linear layers behind the second and third block of the student to those of the
    teacher, frame by frame: the former to the channels that vary most, the latter to the principal
    components.
    """
    alike = [chunk.inputs for chunk in chunks if chunk.inputs.shape[-1] == min(LENGTHS) // 2]
    inputs = torch.cat(alike).float()
    segments = Segments.of(inputs, None, SEGMENT)
    theirs = []
    for part in inputs.split(8):
        second = teacher.xvector["transit2"](teacher.xvector["block2"](part, None, segments))
        third = teacher.xvector["transit3"](teacher.xvector["block3"](second, None, segments))
        theirs.append((flat(second), flat(third)))
    second, third = (torch.cat(frames) for frames in zip(*theirs))

    ours = student.xvector["block2"](inputs, None, segments)
    transit = student.xvector["transit2"]
    chosen = second.var(0).argsort(descending=True)[: transit.linear.out_channels]
    ours = fit_transit(transit, ours, second[:, chosen])

    block = student.xvector["block3"]
    set_norms(block, lambda: block(ours, None, segments))
    transit = student.xvector["transit3"]
    scaled = (third - third.mean(0)) / third.std(0)
    axes = torch.linalg.eigh(scaled.T @ scaled)[1][:, -transit.linear.out_channels :]
    ours = fit_transit(transit, block(ours, None, segments), scaled @ axes)
    norm = student.xvector["out_nonlinear"]
    reset_norm(norm)
    set_norms(norm, lambda: norm(ours))


def fit_transit(transit: nn.Module, x: Tensor, wanted: Tensor) -> Tensor:
    """Fit a batch norm, ReLU, and linear layer, and return its outputs.

    Args:
        transit: the layers.
        x: (crops, channels, frames) their inputs.
        wanted: (frames, outputs) values that the outputs are regressed to, as by ``flat``; their
            mean is left to the next norm.
    """
    reset_norm(transit.nonlinear)
    set_norms(transit, lambda: transit(x))
    weight, _ = ridge(flat(transit.nonlinear(x)), wanted, FRAME_RIDGE)
    transit.linear.weight[:, :, 0] = weight
    return transit(x)


def reset_norm(nonlinear: nn.Module) -> None:
    """Let a batch norm before a ReLU do no more than standardise."""
    nn.init.ones_(nonlinear.batchnorm.weight)
    nn.init.constant_(nonlinear.batchnorm.bias, NORM_BIAS)


def flat(x: Tensor) -> Tensor:
    """Return every fourth frame (frames, channels) of (crops, channels, frames)."""
    return x[:, :, ::4].transpose(1, 2).flatten(0, 1)


def set_norms(module: nn.Module, forward: Callable[[], Tensor]) -> None:
    """Set the statistics of the batch norms inside to those of this pass."""
    norms = [one for one in module.modules() if isinstance(one, nn.BatchNorm1d)]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    forward()
    for norm in norms:
        norm.momentum = 0.1
        norm.eval()


def ridge(x: Tensor, y: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """Return the weight (outputs, inputs) and bias (outputs,) of a ridge regression."""
    x_mean = x.double().mean(0)
    y_mean = y.double().mean(0)
    centred = x.double() - x_mean
    gram = centred.T @ centred / len(x)
    gram += strength * gram.diagonal().mean() * torch.eye(len(gram))
    weight = torch.linalg.solve(gram, centred.T @ (y.double() - y_mean) / len(x)).T
    return weight.float(), (y_mean - weight @ x_mean).float()


@torch.no_grad()
def fit_last_layer(student: Campplus, chunks: list[Chunk]) -> None:
    """Fit the last linear layer to the teacher's embeddings by ridge regression."""
    pooled: list[Tensor] = []
    dense = student.xvector["dense"]
    hook = dense.register_forward_pre_hook(lambda _, given: pooled.append(given[0][:, :, 0]))
    for chunk in chunks:
        student.above(chunk.inputs.float(), None)
    hook.remove()
    size = dense.linear.out_channels
    wanted = torch.cat([chunk.targets[:, :size] for chunk in chunks])
    wanted = F.normalize(wanted, dim=1) * wanted.norm(dim=1).mean()
    dense.linear.weight[:, :, 0], bias = ridge(torch.cat(pooled), wanted, LAST_RIDGE)
    # The last norm only adds the bias: the targets are not standardised.
    norm = dense.nonlinear.batchnorm
    norm.running_mean.copy_(-bias)
    norm.running_var.fill_(1.0)


def train(student: Campplus, chunks: list[Chunk], steps: int, seed: int) -> None:
    """Train what is above the first dense block; the statistics of batch norms stay.

    Args:
        student: is in evaluation mode, with its first block frozen.
        chunks: crops and what the teacher makes of them.
        steps: of the optimiser.
        seed: draws the batches.
    """
    rng = np.random.default_rng(seed)
    parameters = [one for one in student.parameters() if one.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=PEAK_RATE, weight_decay=WEIGHT_DECAY)
    shown = 0.0
    for step in range(steps):
        rate = min((step + 1) / WARMUP, 0.5 * (1 + np.cos(np.pi * step / steps)))
        optimiser.param_groups[0]["lr"] = PEAK_RATE * rate
        inputs, targets = draw(chunks, rng)
        optimiser.zero_grad()
        loss, cosine = compare(student.above(inputs.float(), None), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 5.0)
        optimiser.step()
        shown += cosine / SHOWN
        if step % SHOWN == SHOWN - 1:
            print(f"step {step + 1}: mean cosine to the teacher {shown:.3f}", flush=True)
            shown = 0.0


def draw(chunks: list[Chunk], rng: np.random.Generator) -> Chunk:
    """Return a batch of crops of the same length, from a few chunks."""
    length = rng.choice(len(LENGTHS))
    numbers = rng.choice(np.arange(length, len(chunks), len(LENGTHS)), CHUNKS_IN_BATCH, False)
    each = BATCH // CHUNKS_IN_BATCH
    parts = []
    for number in numbers.tolist():
        rows = torch.from_numpy(rng.choice(CHUNK, each, replace=False))
        parts.append((chunks[number].inputs[rows], chunks[number].targets[rows]))
    return Chunk(*(torch.cat(tensors) for tensors in zip(*parts)))


def compare(embeddings: Tensor, targets: Tensor) -> tuple[Tensor, float]:
    """Return the loss of a batch, and the mean cosine of embeddings and targets."""
    unit = F.normalize(embeddings, dim=1)
    wanted = F.normalize(targets, dim=1)
    cosine = (unit * wanted).sum(1).mean()
    relations = (unit @ unit.T - wanted @ wanted.T).square().mean()
    return 1 - cosine + RELATIONS * relations, float(cosine.detach())


def main() -> None:
    """Make the crops, train, write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table")
    parser.add_argument("out")
    parser.add_argument("--where", default="split=train;label=bonafide")
    parser.add_argument("--noises", required=True)
    parser.add_argument("--cache", required=True)
    parser.add_argument("--teacher", default="default")
    parser.add_argument("--crops", type=int, default=12000)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--layers", type=int, nargs=3, default=(12, 3, 1))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    checkpoint = load_checkpoint(options.teacher)
    utterances = load_utterances(options.table, options.where)
    paths = [utterances.path(row) for row in range(len(utterances))]
    make = CropMaker(paths, options.noises)
    teacher = frozen(checkpoint)
    chunks = load_chunks(teacher, make, Path(options.cache), options.crops)
    student = start(checkpoint, tuple(options.layers))
    encoder = spawn_encoder(student).eval()
    fit_transits(encoder, teacher, chunks[:FITTED_CHUNKS])
    fit_last_layer(encoder, chunks)
    train(encoder, chunks, options.steps, options.seed)
    student.encoder = encoder.state_dict()
    student.specification.encoder_options["frozen_blocks"] = 0
    student.specification.training["distilled"] = (
        f"from {options.teacher}, on {len(chunks) * CHUNK} crops of {len(paths)} utterances"
    )
    save_checkpoint(options.out, student)


if __name__ == "__main__":
    main()
