"""Builds the parts of a training run from its options. Only this module uses all of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from sasv.core.errors import SasvError
from sasv.core.outputs import refuse_inside_speech
from sasv.encoders.memory_format import use_channels_last
from sasv.losses import LOSSES
from sasv.parallel.devices import pick_device
from sasv.parallel.processes import Processes
from sasv.training.anchor import Anchor
from sasv.training.averages import Averages
from sasv.training.data import TrainingData, load_training_data
from sasv.training.engine import Engine, seed_everything
from sasv.training.modules import System, check_needs_no_spoofs, make_modules
from sasv.training.normalisation import normalise_globally
from sasv.training.optimisers import make_optimiser, parameter_groups
from sasv.training.options import AverageOptions, TrainOptions
from sasv.training.record import ModelRecord
from sasv.training.run_folder import RunFolder
from sasv.training.schedules import MarginWarmup, make_schedule
from sasv.training.selection import DevelopmentSet
from sasv.training.trainer import Trainer, TrainerSettings


def build_trainer(options: TrainOptions, processes: Processes | None = None) -> Trainer:
    """Assemble a training run; nothing is trained or written yet.

    Args:
        options: see TrainOptions.
        processes: this process among those that train together; None if it is alone.

    Raises:
        SasvError: options, tables or weights contradict each other.
    """
    processes = processes or Processes()
    device = pick_device(options.device)
    schedule = make_schedule(options)
    seed_everything(options.seed)  # the weights of new modules depend on it
    if not options.spoof_pairs:
        check_needs_no_spoofs(options.loss, options.spoof_head)
    anchored = LOSSES.get(options.loss).anchored
    check_anchor(options, anchored)
    data = load_training_data(
        options,
        options,
        options.seed,
        processes,
        device,
        name_sources=anchored,
    )
    refuse_inside_speech(options.out, data.utterances.paths)
    development = DevelopmentSet.load(options, options.utterances)
    anchor = make_anchor(options.init, data, device) if anchored else None
    engine, notes = build_engine(options, data.classes, device, processes, anchor)
    folder = RunFolder(
        Path(options.out), options, data.utterances, processes.world, options.allow_changed
    )
    return Trainer(
        settings=TrainerSettings(
            epochs=options.epochs,
            evaluate_every=options.evaluate_every,
            accumulate_batches=options.accumulate_batches,
            batch_norm_batches=options.batch_norm_batches,
            save_minutes=options.save_minutes,
            tensorboard=options.tensorboard,
            seed=options.seed,
            min_anchor_cosine=options.min_anchor_cosine,
        ),
        data=data,
        development=development,
        engine=engine,
        schedule=schedule,
        margin=MarginWarmup(
            start=options.margin_start, end=options.margin, epochs=options.margin_warmup_epochs
        ),
        folder=folder,
        record=ModelRecord(
            loss=options.loss,
            licence=options.licence,
            init=options.init,
            seed=options.seed,
        ),
        processes=processes,
        notes=notes,
    )


def check_anchor(options: TrainOptions, anchored: bool) -> None:
    """Check that there is an anchor if the loss, or a bound on the drift from it, needs one.

    Raises:
        SasvError: there is none.
    """
    if anchored and not options.init:
        raise SasvError(
            f"the loss {options.loss} keeps embeddings near those of a trained encoder; give its "
            "checkpoint with --init"
        )
    if not anchored and options.min_anchor_cosine > -1:
        raise SasvError(
            f"--min-anchor-cosine bounds the drift from an anchor, and the loss {options.loss} has "
            "none; leave it out, or use --loss anchored"
        )


def make_anchor(init: str, data: TrainingData, device: torch.device) -> Anchor:
    """Return the frozen copy of the encoder of a checkpoint as the anchor, for the speakers of the
    training data.
    """
    rows = np.flatnonzero(~data.utterances.spoofed)
    return Anchor(
        init, data.utterances.take(rows), data.planner.speaker[rows], data.speakers, device
    )


def build_engine(
    options: TrainOptions,
    classes: Sequence[str],
    device: torch.device,
    processes: Processes,
    anchor: Anchor | None = None,
) -> tuple[Engine, list[str]]:
    """Assemble modules, optimiser and averages into an engine.

    Args:
        options: see TrainOptions.
        classes: names of the training classes.
        device: device on which it runs.
        processes: this process among those that train together.
        anchor: the anchor of the loss, None if it needs none.

    Returns:
        The engine, and notes about what was loaded from the initial checkpoint.

    Raises:
        SasvError: options or weights contradict each other, or a package is missing.
    """
    encoder, head, notes = make_modules(options, options, classes)
    if options.sync_batch_norm and processes.world > 1:
        normalise_globally(encoder, device)
    system = System(
        encoder,
        head,
        options.precision,
        options.gather_batches,
        processes,
        augment=options.augment and options.spec_augment,
        freeze_batch_norm=options.freeze_batch_norm,
        anchor=anchor,
    )
    system.to(device)
    # Not on a CPU: there, the backward pass of CAM++ in this format corrupts memory (PyTorch 2.13).
    if options.channels_last and device.type == "cuda":
        use_channels_last(encoder)
    averages = make_averages(options, system)  # a copy of the system, which is never compiled
    if options.compile:
        system.compile_encoder(device, options.compile_mode)
    optimiser = make_optimiser(
        options.optimiser,
        parameter_groups(encoder, head),
        options.max_lr,
        options.weight_decay,
    )
    engine = Engine(
        system,
        optimiser,
        averages,
        device,
        processes,
        max_grad_norm=options.max_grad_norm,
        scale_gradients=options.precision == "float16",
    )
    return engine, notes


def make_averages(options: AverageOptions, system: System) -> Averages | None:
    """Return the averages of the weights of a system, None if the options request none."""
    if options.weight_average == "none":
        return None
    return Averages(system, options.weight_average, options.ema_decay, options.average_start_epoch)
