"""The trainer of all stages, in one or several processes: runs the epochs and selects the model on
development trials.

Every random draw is a function of (seed, epoch, batch, item), so that no random state has to be
saved. A run that is killed and started again with the same command resumes at the last saved batch
and ends with the same weights. ``sasv.training.build`` makes a trainer from options.
"""

import contextlib
import logging
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from sasv.batches.loading import Ahead, failures_explained
from sasv.batches.plan import EpochPlan
from sasv.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from sasv.core.errors import SasvError
from sasv.core.files import locked
from sasv.core.memory import keep_memory
from sasv.core.progress import Progress
from sasv.embeddings.model import Model
from sasv.encoders.base import parameters_of
from sasv.parallel.processes import Processes
from sasv.training.data import TrainingData
from sasv.training.engine import Engine, seed_everything
from sasv.training.modules import System, detached, set_margin
from sasv.training.position import (
    Position,
    describe,
    log_row,
    mean_values,
    position_of,
    renamed_row,
    zero_sums,
)
from sasv.training.record import ModelRecord, add_decision
from sasv.training.run_folder import Board, RunFolder
from sasv.training.schedules import MarginWarmup, Schedule
from sasv.training.selection import DevelopmentSet
from sasv.training.stopping import Stopped, StopRequest

logger = logging.getLogger("sasv")

BOARD_STEPS = 10
"""Number of steps between values written to TensorBoard."""


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """Settings of a trainer.

    Attributes:
        epochs: number of epochs.
        evaluate_every: number of epochs between evaluations on the development trials.
        accumulate_batches: number of batches whose gradients are accumulated for one step.
        batch_norm_batches: number of batches over which the batch-norm statistics of averaged
            weights are computed.
        save_minutes: minutes between saved states within an epoch.
        tensorboard: whether TensorBoard files are written.
        seed: seed of random draws on the device.
        min_anchor_cosine: mean cosine of bona fide speech with the anchor below which training
            ends; -1 if there is no bound.
    """

    epochs: int
    evaluate_every: int = 1
    accumulate_batches: int = 1
    batch_norm_batches: int = 50
    save_minutes: float = 10.0
    tensorboard: bool = False
    seed: int = 0
    min_anchor_cosine: float = -1.0


class Trainer:
    """One training run.

    Args:
        settings: the settings.
        data: the training data.
        engine: performs the optimiser steps.
        schedule: learning rate of each epoch.
        margin: margin of the loss in each epoch.
        folder: stores options, state and log.
        record: information about the training that is stored in the model.
        development: development trials that select the model; None keeps that of the last epoch.
        processes: this process among those that train together.
        notes: messages that are logged when the training begins.

    Attributes:
        position: position of the run.
        history: the rows of the log.
    """

    def __init__(
        self,
        *,
        settings: TrainerSettings,
        data: TrainingData,
        engine: Engine,
        schedule: Schedule,
        margin: MarginWarmup,
        folder: RunFolder,
        record: ModelRecord,
        development: DevelopmentSet | None = None,
        processes: Processes | None = None,
        notes: list[str] | None = None,
    ):
        self.settings = settings
        self.data = data
        self.engine = engine
        self.schedule = schedule
        self.margin = margin
        self.folder = folder
        self.record = record
        self.development = development
        self.processes = processes or Processes()
        self.notes = notes or []
        self.position = Position()
        self.history: list[dict[str, Any]] = []
        self.board = Board("", 0)
        self.stop = StopRequest()
        self.saved = time.monotonic()

    @property
    def out(self) -> Path:
        """The run folder."""
        return self.folder.path

    def run(self) -> Path:
        """Train to the last epoch and return the path of the final model."""
        keep_memory()
        with locked(self.out) if self.processes.main else contextlib.nullcontext():
            resumed = self._resume()
            self.processes.wait()
            if self.processes.main:
                self.folder.describe()
            self._introduce(resumed)
            if self.engine.system.anchor is not None:
                self.engine.system.anchor.prepare(self.out / "voiceprints", self.processes)
            length = len(self.data.plan(self.position.epoch))
            self._open_board(self.position.epoch * length + self.position.batch)
            try:
                with self.stop.listening(), failures_explained():
                    self._run_epochs(length)
                    return self._finish()
            except Stopped:
                if self.stop.signal == signal.SIGINT:
                    raise KeyboardInterrupt from None
                name = signal.Signals(self.stop.signal or signal.SIGTERM).name
                raise SasvError(
                    f"{self.out}: stopped by {name} and saved; run the same command again to resume"
                ) from None

    def _open_board(self, step: int) -> None:
        """Open the TensorBoard files, if requested; ``step`` is the next step."""
        if self.settings.tensorboard and self.processes.main:
            self.board = Board(self.out / "tensorboard", step)

    def _run_epochs(self, length: int) -> None:
        """Train and evaluate the remaining epochs. The state is saved before and after each
        evaluation.

        Args:
            length: number of batches per epoch.
        """
        while self._epochs_are_left():
            if self.position.evaluated == self.position.epoch:
                self.history.append(self._train_epoch())
                self._save()
            row = self.history[-1]
            if self._drifted():
                self._note_drift(row)
            elif self.development and self._evaluation_is_due():
                with self._stopping_at_once():
                    self._evaluate(row)
            elif not self.development and self.settings.min_anchor_cosine > -1:
                self._keep()
            self.position.evaluated = self.position.epoch
            self._save()
            self.board.add(self.position.epoch * length, row, "epoch")
            self._say(describe(row, self.settings.epochs))
            self._stop_if_asked()

    def _epochs_are_left(self) -> bool:
        if self.position.evaluated < self.position.epoch:
            return True
        return self.position.epoch < self.settings.epochs and not self._drifted()

    def _drifted(self) -> bool:
        """Whether bona fide speech was too far from the anchor in the last epoch."""
        bound = self.settings.min_anchor_cosine
        return bool(self.history) and self.history[-1].get("anchor_cosine", 1.0) < bound

    def _note_drift(self, row: dict[str, Any]) -> None:
        """Log that training ends here. Raise SasvError if no earlier epoch can be the model."""
        found = (
            f"epoch {row['epoch']}: bona fide speech is at cosine {row['anchor_cosine']:.3f} to "
            f"the anchor, below {self.settings.min_anchor_cosine}"
        )
        if not self.position.best_epoch:
            raise SasvError(
                f"{self.out}: {found}, and there is no model of an earlier epoch; lower --max-lr "
                "or the weights of spoofed speech in --loss-options, or evaluate more often"
            )
        self._say(f"{found}; the model is that of epoch {self.position.best_epoch}")

    def _evaluation_is_due(self) -> bool:
        last = self.position.epoch == self.settings.epochs
        return last or self.position.epoch % self.settings.evaluate_every == 0

    def _stopping_at_once(self) -> contextlib.AbstractContextManager[None]:
        """End the training immediately on a signal within the block.

        With several processes, each must first finish what it is doing.
        """
        return self.stop.at_once() if self.processes.world == 1 else contextlib.nullcontext()

    def _say(self, text: str) -> None:
        if self.processes.main:
            logger.info(text)

    def _introduce(self, resumed: bool) -> None:
        """Log what is about to be trained."""
        if resumed:
            inside = f", batch {self.position.batch}" if self.position.batch else ""
            self._say(f"{self.out}: going on after epoch {self.position.epoch}{inside}")
        encoder = self.engine.system.encoder
        plan = self.data.plan(0)
        world = self.processes.world
        many = f" in each of {world} processes" if world > 1 else ""
        self._say(
            f"{encoder.name}, {parameters_of(encoder):,} parameters, on {self.engine.device}; "
            f"{len(self.data.utterances):,} utterances, {self.data.speakers} speakers; "
            f"{self.settings.epochs} epochs of {len(plan)} batches of {plan.rows.shape[1]} "
            f"pairs{many}"
        )
        if self.data.augmentations:
            self._say(f"augmentations: {', '.join(self.data.augmentations)}")
        for note in self.notes:
            self._say(note)

    def _train_epoch(self) -> dict[str, Any]:
        """Run one epoch; return its row of the log."""
        position = self.position
        lr = self.schedule(position.epoch)
        self.engine.set_lr(lr)
        set_margin(self.engine.system.head, self.margin(position.epoch))
        self.engine.trained.train()
        self._train_batches(lr)
        self._check_epoch()
        if self.engine.averages:
            self.engine.averages.after_epoch(self.engine.system, position.epoch)
        row = log_row(position.epoch + 1, lr, position.sums)
        position.epoch += 1
        position.batch = 0
        position.sums = zero_sums()
        return row

    def _train_batches(self, lr: float) -> None:
        """Train on the remaining batches of the current epoch with the learning rate ``lr``."""
        position = self.position
        plan = self.data.plan(position.epoch)
        title = f"epoch {position.epoch + 1}/{self.settings.epochs}"
        left = len(plan) - position.batch
        with (
            Progress(title, left, "batches", not self.processes.main) as progress,
            self.data.batches(plan, position.epoch, position.batch) as batches,
        ):
            ahead = Ahead(batches)
            started = time.monotonic()
            for waves, labels in ahead:
                stepped = self._batch(waves, labels, plan, ahead.fetch)
                position.sums["waited"] += ahead.waited
                ahead.waited = 0.0
                position.sums["seconds"] += time.monotonic() - started
                started = time.monotonic()
                means = mean_values(position.sums)
                progress.add(
                    1, f"loss {means['loss']:.3f}, accuracy {means['accuracy']:.1f}%, lr {lr:.2e}"
                )
                if position.batch % BOARD_STEPS == 0:
                    self.board.add(
                        position.epoch * len(plan) + position.batch, means | {"lr": lr}, "step"
                    )
                if stepped:
                    self._save_when_due()

    def _batch(
        self, waves: Tensor, labels: Tensor, plan: EpochPlan, meanwhile: Callable[[], None]
    ) -> bool:
        """Train on one batch; return whether it ended an optimiser step. ``meanwhile`` is called
        while a GPU computes.
        """
        position = self.position
        accumulate = self.settings.accumulate_batches
        self._seed(position.batch, 2)
        first = position.batch - position.batch % accumulate
        group = min(accumulate, len(plan) - first)
        last = position.batch + 1 == first + group
        seen = self.engine.backward(waves, labels, plan.labels.shape[1], group, last, meanwhile)
        if seen.pairs > 0:
            position.sums["loss"] += seen.loss
            position.sums["accuracy"] += seen.accuracy
            position.sums["batches"] += 1.0
            position.sums["pairs"] += seen.pairs
            if seen.anchor_cosine is not None:
                summed = position.sums.get("anchor_cosine", 0.0)
                position.sums["anchor_cosine"] = summed + seen.anchor_cosine
        position.batch += 1
        if last and not self.engine.step(position.epoch):
            position.sums["skipped"] += 1
        return last

    def _check_epoch(self) -> None:
        """Log how many steps of the epoch were skipped. Raise SasvError if no file of the epoch
        could be read.
        """
        sums = self.position.sums
        if not sums["pairs"] and not sums["skipped"]:
            raise SasvError(
                f"{self.data.source}: no training file could be read; the reasons are above"
            )
        if sums["skipped"]:
            self._say(
                f"epoch {self.position.epoch + 1}: {sums['skipped']:.0f} steps skipped, because "
                "their gradients were not finite"
            )

    def _seed(self, batch: int, purpose: int) -> None:
        """Seed the random draws of a batch on the device (SpecAugment, dropout)."""
        number = batch * self.processes.world + self.processes.rank
        rng = np.random.default_rng([self.settings.seed, self.position.epoch, number, purpose])
        seed_everything(int(rng.integers(1 << 31)))

    def _evaluate(self, row: dict[str, Any]) -> None:
        """Score the development trials, and keep the model if it is the best so far."""
        assert self.development is not None
        checkpoint = self.checkpoint()
        model = Model(checkpoint, self.engine.device)
        result = self.development.evaluate(model, self.processes)
        row |= {name: result[name] for name in ("sasv_eer", "sv_eer", "spf_eer")}
        value = result[self.development.metric]
        assert value is not None
        if value > self.position.best:  # of equally good models, the longest trained one is kept
            return
        self.position.best = float(value)
        self.position.best_epoch = self.position.epoch
        add_decision(checkpoint.specification, self.development.metric, result, self.position.epoch)
        if self.processes.main:
            save_checkpoint(self.out / "best.safetensors", checkpoint)

    def _keep(self) -> None:
        """Keep the current model, which becomes the final one if the next epochs drift too far."""
        checkpoint = self.checkpoint()
        self.position.best_epoch = self.position.epoch
        if self.processes.main:
            save_checkpoint(self.out / "best.safetensors", checkpoint)

    def checkpoint(self) -> Checkpoint:
        """Return the current model, with averaged weights if requested, and its specification."""
        self.processes.spread(self.engine.statistics)  # each process has those of its own batches
        system = self.engine.system
        average = "none"
        if self.engine.averages and self.engine.averages.ready:
            system = self._averaged_system()
            average = self.engine.averages.kind
        specification = self.record.specification(
            system.encoder, self.data, self.position.epoch, average
        )
        return Checkpoint(
            specification, detached(system.encoder), detached(system.head), str(self.out)
        )

    def _averaged_system(self) -> System:
        """Return the averaged system, with batch-norm statistics from the last batches of the next
        epoch.
        """
        averages = self.engine.averages
        assert averages is not None
        self._seed(0, 3)
        plan = self.data.plan(self.position.epoch)
        first = max(0, len(plan) - self.settings.batch_norm_batches)
        with self.data.batches(plan, self.position.epoch, first) as batches:
            return averages.system(batches, self.engine.device, self.processes)

    def _save_when_due(self) -> None:
        """Save every few minutes, and before stopping if a signal requested it."""
        stop = self.stop.asked(self.processes, self.engine.device)
        if stop or time.monotonic() - self.saved >= 60 * self.settings.save_minutes:
            self._save()
        if stop:
            self.processes.wait()
            raise Stopped

    def _stop_if_asked(self) -> None:
        """End the training if any process received a signal; everything has been saved."""
        if self.stop.asked(self.processes, self.engine.device):
            self.processes.wait()
            raise Stopped

    def _save(self) -> None:
        """Write state and log. If this fails, the run continues, and the last written state
        remains.
        """
        self.saved = time.monotonic()
        if not self.processes.main:
            return
        try:
            self.folder.save(asdict(self.position) | self.engine.state(), self.history)
        except SasvError as error:
            logger.info(f"not saved, going on: {error}")

    def _resume(self) -> bool:
        """Load the state of an earlier run with the same options in the same folder."""
        state = self.folder.load()
        where = None if state is None else (state["epoch"], state["batch"])
        if len(set(self.processes.gather(where))) > 1:
            raise SasvError(
                f"{self.out}: the processes see different states here; --out must be on a disk "
                "that they all share"
            )
        if state is None:
            return False
        changed = self.folder.check()
        try:
            notes = self.engine.restore(state, changed)
            self.position = position_of(state)
        except (ValueError, RuntimeError, KeyError) as error:
            reason = " ".join(str(error).split())[:300]
            raise SasvError(
                f"{self.folder.state}: the state belongs to another model, or is damaged "
                f"({reason}); choose another --out, and use --init to start from its weights"
            ) from error
        self.history = [renamed_row(row) for row in state["history"]]
        if changed:
            self._say(f"going on with changed options: {'; '.join(self.folder.changed())}")
            self.position.batch = 0  # the plan of the epoch may have changed
            self.position.sums = zero_sums()
        for note in notes:
            self._say(note)
        return True

    def _finish(self) -> Path:
        """Write the final model: the best on the development trials or, without these, the last."""
        final = self.out / "model.safetensors"
        best = self.out / "best.safetensors"
        last = None if self.position.best_epoch else self.checkpoint()
        if self.processes.main:
            save_checkpoint(final, last or load_checkpoint(best))
        if self.development:
            found = f"{self.position.best:.2f}% in epoch {self.position.best_epoch}"
            self._say(f"best {self.development.metric} on development trials: {found}")
        self._say(f"model: {final}")
        self.processes.wait()
        return final
