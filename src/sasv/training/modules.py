"""Builds the modules of a training run: encoder and loss head, for its classes."""

import shutil
from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from sasv.checkpoints import Checkpoint, load_checkpoint, restore_head, spawn_encoder
from sasv.core.errors import SasvError
from sasv.encoders import ENCODERS, make_encoder
from sasv.encoders.base import Encoder
from sasv.losses import LOSSES, make_loss
from sasv.losses.base import Loss, LossOutput
from sasv.losses.spoof_head import SPOOF_HEADS
from sasv.parallel.processes import Processes, total_with_gradient
from sasv.tables import Utterances
from sasv.training.anchor import Anchor
from sasv.training.normalisation import batch_norms
from sasv.training.options import LossOptions, ModelOptions
from sasv.training.spec_augment import spec_augment

SPOOF_CLASS = "spoof"

LOW_PRECISION = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class System(nn.Module):
    """Encoder and loss head as one module.

    Args:
        encoder: computes embeddings from waveforms.
        head: computes the loss from embeddings and classes.
        precision: float32, or the type that autocast uses.
        gather: whether the loss is computed over the items of all processes.
        processes: the processes that train together.
        augment: whether SpecAugment is applied in training mode.
        freeze_batch_norm: whether batch norms keep their statistics in training mode.
        anchor: the twin of the encoder that the loss compares with, None if it needs none.

    Attributes:
        compiled: ``encoder.embed_features`` after torch.compile, None if it is not compiled.
        replays_graphs: whether it replays CUDA graphs, whose results are valid until it is called
            again.
    """

    def __init__(
        self,
        encoder: Encoder,
        head: Loss,
        precision: str,
        gather: bool,
        processes: Processes,
        augment: bool = True,
        freeze_batch_norm: bool = False,
        anchor: Anchor | None = None,
    ):
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.low = LOW_PRECISION.get(precision)
        self.gather = gather
        self.processes = processes
        self.augment = augment
        self.freeze_batch_norm = freeze_batch_norm
        self.anchor = anchor
        self.compiled: Callable[[Tensor, Tensor | None], Tensor] | None = None
        self.replays_graphs = False

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; frozen batch norms stay in evaluation mode."""
        super().train(mode)
        if self.freeze_batch_norm:
            for norm in batch_norms(self.encoder):
                norm.eval()
        return self

    def compile_encoder(self, device: torch.device, mode: str) -> None:
        """Compile the part of the encoder after its front-end, in a mode of torch.compile.

        Raises:
            SasvError: the device is a CPU and there is no C++ compiler.
        """
        if device.type == "cpu" and not any(map(shutil.which, ("g++", "c++", "clang++"))):
            raise SasvError(
                "--compile needs a C++ compiler on a CPU, but none is installed; install g++ or "
                "leave out --compile"
            )
        self.compiled = torch.compile(self.encoder.embed_features, mode=mode)
        self.replays_graphs = device.type == "cuda" and mode in ("reduce-overhead", "max-autotune")

    def forward(self, waves: Tensor, labels: Tensor, wanted: int) -> LossOutput:
        """Compute the loss.

        Args:
            waves: (items, 2, samples).
            labels: (items,) classes.
            wanted: number of items of a complete batch.
        """
        with torch.autocast(waves.device.type, self.low, enabled=self.low is not None):
            features, frames = self.encoder.features(flat_pairs(waves))
            embeddings = as_pairs(self.embed_features(features, frames))
            if self.anchor is not None:
                anchored = as_pairs(self.anchor.embed(features, frames))
                spoof = self.head.classes - 1
                # The label of spoofed speech identifies the imitated speaker.
                speakers = torch.where(labels >= spoof, labels - spoof, labels)
                voiceprints = self.anchor.voiceprints_of(speakers)[:, None]
                embeddings = torch.cat((embeddings, anchored, voiceprints), dim=1)
                labels = labels.clamp(max=spoof)
        if self.gather:
            embeddings, labels = self.gathered(embeddings, labels, wanted)
        return self.head.total(embeddings, labels)

    def embed(self, waves: Tensor) -> Tensor:
        """Compute embeddings (batch, dimension) of waveforms (batch, samples) of equal length. In
        training mode, their features are augmented.
        """
        return self.embed_features(*self.encoder.features(waves))

    def embed_features(self, features: Tensor, frames: Tensor | None) -> Tensor:
        """Compute embeddings (batch, dimension) of features (see Encoder.features). In training
        mode, the features are augmented.
        """
        if self.training and self.augment:
            features = spec_augment(features)
        embed_features = self.compiled or self.encoder.embed_features
        return embed_features(features, frames)

    def gathered(self, embeddings: Tensor, labels: Tensor, wanted: int) -> tuple[Tensor, Tensor]:
        """Return the embeddings and labels of all processes; gradients flow back to each
        process.
        """
        room = self.processes.world * wanted
        rows = torch.arange(len(labels), device=labels.device) + self.processes.rank * wanted
        everything = embeddings.new_zeros(room, *embeddings.shape[1:]).index_copy(
            0, rows, embeddings
        )
        classes = labels.new_zeros(room).index_copy(0, rows, labels + 1)
        found = self.processes.total(classes) - 1
        return total_with_gradient(everything)[found >= 0], found[found >= 0]


def flat_pairs(waves: Tensor) -> Tensor:
    """Reshape waveforms (items, 2, samples) to (2 * items, samples): the first utterances of all
    items, then the second ones.
    """
    return waves.transpose(0, 1).reshape(2 * len(waves), -1)


def as_pairs(embeddings: Tensor) -> Tensor:
    """Reshape the embeddings (2 * items, dimension) of ``flat_pairs`` to (items, 2, dimension), in
    float32.
    """
    return embeddings.reshape(2, len(embeddings) // 2, -1).transpose(0, 1).float()


def class_list(utterances: Utterances) -> tuple[list[str], np.ndarray]:
    """Return the names of the classes, and a number for each row, (rows,).

    The classes are the speakers with bona fide speech, sorted, followed by the spoof class if there
    is spoofed speech. The number of a bona fide row is its class. All spoofed rows belong to the
    spoof class; their number is that of the imitated speaker among all speakers of the table, by
    which spoofed pairs are grouped.
    """
    codes, names = utterances.speakers
    order = np.argsort(np.array(names))
    rank = np.empty(len(names), np.int64)
    bona_fide = np.zeros(len(names), bool)
    bona_fide[codes[~utterances.spoofed]] = True
    # Speakers with bona fide speech come first, so that their numbers are classes.
    order = np.concatenate((order[bona_fide[order]], order[~bona_fide[order]]))
    rank[order] = np.arange(len(names))
    classes = [names[index] for index in order if bona_fide[index]]
    if utterances.spoofed.any():
        classes.append(SPOOF_CLASS)
    return classes, rank[codes]


def make_modules(
    model: ModelOptions, loss: LossOptions, classes: Sequence[str]
) -> tuple[Encoder, Loss, list[str]]:
    """Make encoder and loss head, from a checkpoint if one is given.

    Args:
        model: the encoder, or the initial checkpoint.
        loss: the loss.
        classes: names of the training classes.

    Returns:
        Encoder, loss head, and notes about what was kept and dropped.

    Raises:
        SasvError: the checkpoint contains another encoder, or an option is unknown.
    """
    notes: list[str] = []
    if model.init:
        checkpoint = load_checkpoint(model.init)
        saved = checkpoint.specification
        kind = ENCODERS.get(saved.encoder)
        saved.encoder_options |= kind.retrained(saved.encoder_options, model.encoder_options)
        encoder = spawn_encoder(checkpoint)
        check_wanted(model, checkpoint, encoder)
        notes.append(f"kept all {len(checkpoint.encoder)} encoder entries of {model.init}")
    else:
        encoder = make_encoder(
            model.encoder, model.encoder_options, model.frontend, model.frontend_options
        )
    common = {"margin": loss.margin, "scale": loss.scale}
    head = make_loss(loss.loss, encoder.dimension, len(classes), common, loss.loss_options)
    if loss.spoof_head != "none":
        attach_spoof_head(head, loss.loss, loss.spoof_head, loss.spoof_head_weight)
    if model.init:
        notes += restore_head(head, checkpoint, classes if model.keep_classes else ())
    return encoder, head, notes


def attach_spoof_head(head: Loss, loss: str, kind: str, weight: float) -> None:
    """Attach a spoof head to a loss.

    Args:
        head: the loss head.
        loss: name of the loss, for messages.
        kind: name of the spoof head.
        weight: weight of the loss of the spoof head.

    Raises:
        SasvError: the loss already has a spoof head.
    """
    if head.spoof_head is not None:
        raise SasvError(f"the loss {loss} already has a spoof head; leave out --spoof-head")
    head.spoof_head = SPOOF_HEADS[kind](head.dimension)
    head.spoof_head_weight = weight


def check_needs_no_spoofs(loss: str, spoof_head: str) -> None:
    """Check that a loss and a spoof head can be trained without spoofed speech.

    Raises:
        SasvError: one of them cannot; the message says which.
    """
    if spoof_head != "none":
        raise SasvError(
            "--spoof-head learns from spoofed speech, but --spoof-pairs is 0; set --spoof-pairs"
        )
    if LOSSES.get(loss).spoof_aware:
        raise SasvError(
            f"the loss {loss} treats the last class as spoofed speech, but --spoof-pairs is 0; set "
            "--spoof-pairs, or use a loss over speakers, for instance aamsoftmaxproto"
        )


def check_wanted(options: ModelOptions, checkpoint: Checkpoint, encoder: Encoder) -> None:
    """Check that the encoder of a checkpoint is the requested one.

    Raises:
        SasvError: they differ; the message says how.
    """
    specification = checkpoint.specification
    if specification.encoder != options.encoder:
        raise SasvError(
            f"{options.init}: its encoder is {specification.encoder}, not {options.encoder}; set "
            f"--encoder {specification.encoder}"
        )
    if options.frontend not in ("", specification.frontend):
        differing = [f"front-end {specification.frontend} and not {options.frontend}"]
    else:
        # The requested values as an encoder has them: lists for tuples, a complete configuration.
        with torch.device("meta"):
            wanted = make_encoder(
                specification.encoder,
                {**specification.encoder_options, **options.encoder_options},
                specification.frontend,
                {**specification.frontend_options, **options.frontend_options},
            ).description()
        found = encoder.description()
        differing = [
            f"{name} {found[part][name]} and not {value}"
            for part in ("encoder_options", "frontend_options")
            for name, value in wanted[part].items()
            if found[part][name] != value
        ]
    if differing:
        raise SasvError(
            f"{options.init}: has {', '.join(differing)}; leave out what the checkpoint says by "
            "itself"
        )


def set_margin(head: Loss, margin: float) -> None:
    """Set the margin of a loss, or of those of its parts that have one."""
    for part in head.modules():
        if isinstance(part, Loss) and hasattr(part, "margin"):
            setattr(part, "margin", margin)  # noqa: B010 (not every loss declares one)


def detached(module: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the state dict of a module on the CPU."""
    return {key: value.detach().cpu().clone() for key, value in module.state_dict().items()}
