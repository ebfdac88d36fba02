"""Distils a small CAM++ from a large one with a spoof axis: distil.py TABLE OUT.safetensors
--noises FOLDER --cache FOLDER [--where ROWS] [--teacher NAME] [--crops 6000] [--layers 12 10 7].

The student takes the convolutions and the first dense block of the teacher over, so that their
outputs are computed once. What is above them has fewer layers. For crops of speech in any
condition, copies by vocoders included, these are fitted to those of the teacher by regression (see
merged_layers), the last layer to its embeddings, and the spoof axis to its spoof axis. No labels
are used, and nothing is drawn at random but the crops.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyworld
import soxr
import torch
from torch import Tensor
from torch.nn import functional as F

from merged_layers import fit_layers, ridge, round_weights
from sasv.audio import read_audio
from sasv.audio.codecs import transmit
from sasv.batches.augment import Augmenter
from sasv.checkpoints import Checkpoint, load_checkpoint, save_checkpoint, spawn_encoder
from sasv.core.errors import SasvError
from sasv.core.files import atomic_path
from sasv.encoders import make_encoder
from sasv.encoders.campplus import Campplus
from sasv.tables import load_utterances
from sasv.vocoders import make_vocoder
from spoof_axis import AXIS_OFFSET, AXIS_SLOPE, NOISE_SHARE, training_parser, with_axis

RATE = 16000
FROZEN_BLOCKS = 1
LENGTHS = (200, 200, 300)
"""Numbers of frames of a crop; the crops of a chunk have the same."""
CHUNK = 32
KINDS = ("clean", "condition", "copy", "copy in a condition", "two voices")
KIND_SHARES = (0.51, 0.28, 0.09, 0.04, 0.08)
CODECS = ("8khz", "mulaw", "alaw", "amr", "mp3", "opus", "g722", "resampled", "")
""""" is none."""
VOCODERS = ("world", "world", "source-filter", "source-filter", "griffin-lim")
OTHER_SPEED = 0.5
"""Share of the voices that are played faster or slower, which makes other voices of them."""
SPEEDS = (0.8, 1.25)
LAST_RIDGE = 0.01
AXIS_RIDGE = 0.003
FITTED_CROPS = 1500
"""Crops of the least length that the layers are fitted to."""


class Chunk(NamedTuple):
    """Crops of the same length.

    Attributes:
        inputs: (crops, channels, frames) what the teacher's second dense block is fed, half
            precision.
        targets: (crops, dimension) embeddings of the teacher, without its spoof axis.
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
    return Chunk(inputs.half(), targets[:, : teacher.options.embedding])


def load_chunks(teacher: Campplus, make: CropMaker, folder: Path, crops: int) -> list[Chunk]:
    """Return chunks of at least this many crops; those that the folder lacks are made first."""
    found = []
    for number in range(-(-crops // CHUNK)):
        path = folder / f"{number}.pt"
        if not path.exists():
            with atomic_path(path) as temporary:
                torch.save(make_chunk(teacher, make, number)._asdict(), temporary)
            if number % 10 == 9:
                print(f"{(number + 1) * CHUNK} of {crops} crops", flush=True)
        found.append(Chunk(**torch.load(path, weights_only=True)))
    return found


def start(teacher: Checkpoint, layers: tuple[int, ...]) -> Checkpoint:
    """Return a student with these numbers of layers in the dense blocks, which has the teacher's
    first block and all below it, and no spoof axis.
    """
    specification = teacher.specification
    options = specification.encoder_options | {
        "layers": list(layers),
        "frozen_blocks": FROZEN_BLOCKS,
        "spoof_axis": False,
        "inner_axis": False,
    }
    specification = replace(specification, encoder_options=options, decision=None, training={})
    fresh = make_encoder(
        specification.encoder, options, specification.frontend, specification.frontend_options
    )
    assert isinstance(fresh, Campplus)
    weights = fresh.state_dict()
    below = ("head.", "xvector.tdnn.", "xvector.block1.", "xvector.transit1.")
    for name in weights:
        if name.startswith(below) or name.startswith("frontend."):
            weights[name] = teacher.encoder[name].float()
    return replace(teacher, specification=specification, encoder=weights, head={})


def of_least_length(chunks: list[Chunk], crops: int) -> Tensor:
    """Return this number of crops, (crops, channels, frames)."""
    shortest = min(chunk.inputs.shape[-1] for chunk in chunks)
    alike = [chunk.inputs for chunk in chunks if chunk.inputs.shape[-1] == shortest]
    return torch.cat(alike)[:crops].float()


@torch.no_grad()
def fit_last_layer(student: Campplus, chunks: list[Chunk]) -> None:
    """Fit the last linear layer to the teacher's embeddings by ridge regression."""
    pooled: list[Tensor] = []
    dense = student.xvector["dense"]
    hook = dense.register_forward_pre_hook(lambda _, given: pooled.append(given[0][:, :, 0]))
    for chunk in chunks:
        student.above(chunk.inputs.float(), None)
    hook.remove()
    wanted = torch.cat([chunk.targets for chunk in chunks])
    wanted = F.normalize(wanted, dim=1) * wanted.norm(dim=1).mean()
    dense.linear.weight[:, :, 0], bias = ridge(torch.cat(pooled), wanted, LAST_RIDGE)
    round_weights(dense.linear)
    # The last norm only adds the bias: the targets are not standardised.
    norm = dense.nonlinear.batchnorm
    norm.running_mean.copy_(-bias)
    norm.running_var.fill_(1.0)


@torch.no_grad()
def fit_axis(student: Campplus, teacher: Campplus, chunks: list[Chunk]) -> tuple[np.ndarray, float]:
    """Return weight and bias of the spoof head of the student, by regression to the teacher's axis
    (before its ReLU).
    """
    axis = teacher.spoof_axis
    assert axis is not None and teacher.options.inner_axis
    theirs = torch.cat([inner(teacher, chunk.inputs) for chunk in chunks])
    ours = torch.cat([inner(student, chunk.inputs) for chunk in chunks])
    scale = ours.std(0) + 1e-5
    weight, bias = ridge(ours / scale, theirs @ axis.weight[:, None] + axis.bias, AXIS_RIDGE)
    # with_axis makes an axis of the score of a classifier, which is high for bona fide speech.
    factor = -1 / AXIS_SLOPE
    return (factor * weight[0] / scale).numpy(), AXIS_OFFSET + factor * float(bias)


def inner(encoder: Campplus, inputs: Tensor) -> Tensor:
    """Return the statistics that the inner spoof axis reads, (crops, 2 * channels).

    Args:
        encoder: whose first block is frozen.
        inputs: (crops, channels, frames) what its second block is fed.
    """
    return torch.cat([encoder.above_but_last(part, None)[1] for part in inputs.float().split(8)])


def main() -> None:
    """Make the crops, fit the student, write the checkpoint."""
    parser = training_parser(__doc__)
    parser.add_argument("--cache", required=True)
    parser.add_argument("--teacher", default="default")
    parser.add_argument("--crops", type=int, default=6000)
    parser.add_argument("--layers", type=int, nargs=3, default=(12, 10, 7))
    options = parser.parse_args()
    checkpoint = load_checkpoint(options.teacher)
    if not checkpoint.specification.encoder_options.get("inner_axis"):
        raise SasvError(f"{options.teacher}: has no inner spoof axis; see spoof_axis.py")
    utterances = load_utterances(options.table, options.where)
    paths = [utterances.path(row) for row in range(len(utterances))]
    teacher = frozen(checkpoint)
    make = CropMaker(paths, options.noises)
    chunks = load_chunks(teacher, make, Path(options.cache), options.crops)
    student = start(checkpoint, tuple(options.layers))
    encoder = spawn_encoder(student).eval()
    assert isinstance(encoder, Campplus)
    fit_layers(encoder, teacher, of_least_length(chunks, FITTED_CROPS))
    fit_last_layer(encoder, chunks)
    weight, bias = fit_axis(encoder, teacher, chunks)
    student.encoder = encoder.state_dict()
    student.specification.training["distilled"] = (
        f"from {Path(options.teacher).stem}, "
        f"on {len(chunks) * CHUNK} crops of {len(paths)} utterances"
    )
    save_checkpoint(options.out, with_axis(student, weight, bias))


if __name__ == "__main__":
    main()
