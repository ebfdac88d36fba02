"""The trainer of all stages, on one process or many: batches -> encoder -> loss, selection by development trials.

Everything random is a function of (seed, epoch, batch, item), so no random state needs saving: a run that is killed
and started again by the same command goes on at the last saved batch and ends with the same weights.
"""

import contextlib
import math
import signal
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sasv.batches.augment import Augmenter
from sasv.batches.dataset import CropDataset, PlanSampler
from sasv.batches.loading import BatchLoader, failures_explained
from sasv.batches.plan import EpochPlan, PairPlanner
from sasv.checkpoints import Checkpoint, Specification, load_checkpoint, save_checkpoint
from sasv.core.errors import SasvError
from sasv.core.files import locked
from sasv.core.memory import keep_memory
from sasv.core.progress import Progress, duration, say
from sasv.decision import Verifier
from sasv.embeddings.model import Model
from sasv.encoders.base import parameters_of
from sasv.parallel.devices import pick_device
from sasv.parallel.processes import Processes
from sasv.tables import load_utterances
from sasv.training.engine import Engine, seed_everything
from sasv.training.modules import (
    SPOOF_CLASS,
    check_needs_no_spoofs,
    class_list,
    detached,
    make_modules,
    set_margin,
)
from sasv.training.options import TrainOptions
from sasv.training.run_folder import Board, RunFolder
from sasv.training.schedules import make_schedule
from sasv.training.selection import DevelopmentSet
from sasv.training.stopping import Stopped, StopRequest

BOARD_STEPS = 10
"""Steps between the values on TensorBoard."""


def no_sums() -> dict[str, float]:
    """Return the sums of an epoch that has not begun."""
    return dict.fromkeys(("loss", "accuracy", "batches", "pairs", "seconds", "waited", "skipped"), 0.0)


@dataclass
class Position:
    """Where a run is.

    Attributes:
        epoch: whole epochs that are trained.
        batch: batches of the present epoch that are trained.
        sums: sums over these.
        best: best value of the development metric so far.
        best_epoch: its epoch, counted from 1; 0 where none was evaluated.
        evaluated: epochs whose evaluation, where one was due, is done.
    """

    epoch: int = 0
    batch: int = 0
    sums: dict[str, float] = field(default_factory=no_sums)
    best: float = math.inf
    best_epoch: int = 0
    evaluated: int = 0


class Trainer:
    """One training run.

    Args:
        options: see TrainOptions.
        processes: this process among those that train together.

    Raises:
        SasvError: options or tables that do not fit each other.
    """

    def __init__(self, options: TrainOptions, processes: Processes | None = None):
        self.options = options
        self.processes = processes or Processes()
        self.out = Path(options.out)
        self.device = pick_device(options.device)
        self.schedule = make_schedule(options)
        seed_everything(options.seed)
        self.utterances = load_utterances(options.utterances, options.where)
        if not options.spoof_pairs:  # Stage 1 has no spoof class
            self.utterances = self.utterances.take(~self.utterances.spoofed)
        self.development = DevelopmentSet.load(options, options.utterances)
        self.classes, labels = class_list(self.utterances)
        if options.spoof_pairs and self.classes[-1] != SPOOF_CLASS:
            raise SasvError(
                f"{options.utterances}: no row has label spoof, but --spoof-pairs {options.spoof_pairs} wants some"
            )
        if not options.spoof_pairs:
            check_needs_no_spoofs(options.loss, options.spoof_head)
        self.spoof_index = len(self.classes) - 1 if self.classes[-1] == SPOOF_CLASS else None
        joint = self.processes.world if options.gather_batches else 1
        self.planner = PairPlanner(
            labels,
            self.utterances.spoofed,
            self.utterances.attacks[0],
            len(self.classes) - 1,
            options.pairs * joint,
            options.spoof_pairs * joint,
            options.max_utterances_per_speaker,
            options.batches_per_epoch,
            options.seed,
        )
        augmenter = Augmenter(options.noises, options.rirs, options.codecs, options.codec_share)
        self.dataset = CropDataset(self.utterances, options.crop_frames, augmenter if options.augment else None)
        self.loader = BatchLoader(
            self.dataset,
            options.num_workers,
            options.pairs + options.spoof_pairs,
            options.loader_timeout,
            pin=self.device.type == "cuda",
            peers=self.processes.world,
        )
        encoder, head, self.notes = make_modules(options, self.classes)
        self.engine = Engine(options, encoder, head, self.device, self.processes)
        self.at = Position()
        self.saved = time.monotonic()
        self.stop = StopRequest()
        self.history: list[dict[str, Any]] = []
        self.folder = RunFolder(options, self.utterances, self.processes.world)

    def run(self) -> Path:
        """Train to the last epoch and return the path of the final model."""
        keep_memory()
        with locked(self.out) if self.processes.main else contextlib.nullcontext():
            resumed = self._resume()
            self.processes.wait()
            if self.processes.main:
                self.folder.describe()
            self._introduce(resumed)
            length = len(self._plan(self.at.epoch))
            wanted = self.options.tensorboard and self.processes.main
            self.board = Board(self.out / "tensorboard" if wanted else "", self.at.epoch * length + self.at.batch)
            try:
                with self.stop.listening(), failures_explained():
                    self._run_epochs(length)
                    return self._finish()
            except Stopped:
                if self.stop.signal == signal.SIGINT:
                    raise KeyboardInterrupt from None
                raise SasvError(f"{self.out}: stopped by SIGTERM, saved; the same command goes on from here") from None

    def _run_epochs(self, length: int) -> None:
        """Train and evaluate the epochs that are left. Each is saved before it is evaluated, and after it.

        Args:
            length: batches of an epoch.
        """
        while self.at.epoch < self.options.epochs or self.at.evaluated < self.at.epoch:
            if self.at.evaluated == self.at.epoch:
                self.history.append(self._train_epoch())
                self._save()
            row = self.history[-1]
            if self.development and self._evaluation_is_due():
                with self._stopping_at_once():
                    self._evaluate(row)
            self.at.evaluated = self.at.epoch
            self._save()
            self.board.add(self.at.epoch * length, row, "epoch")
            self._say(describe(row, self.options.epochs))
            self._stop_if_asked()

    def _evaluation_is_due(self) -> bool:
        return self.at.epoch % self.options.evaluate_every == 0 or self.at.epoch == self.options.epochs

    def _stopping_at_once(self) -> contextlib.AbstractContextManager[None]:
        """End within the block as soon as a signal comes; among several processes each must finish what it began."""
        return self.stop.at_once() if self.processes.world == 1 else contextlib.nullcontext()

    def _say(self, text: str) -> None:
        if self.processes.main:
            say(text)

    def _introduce(self, resumed: bool) -> None:
        options, at = self.options, self.at
        if resumed:
            inside = f", batch {at.batch}" if at.batch else ""
            self._say(f"{self.out}: going on after epoch {at.epoch}{inside}")
        speakers = len(self.classes) - (self.spoof_index is not None)
        plan = self._plan(0)
        many = f" in each of {self.processes.world} processes" if self.processes.world > 1 else ""
        self._say(
            f"{options.encoder}, {parameters_of(self.engine.system.encoder):,} parameters, on {self.device}; "
            f"{len(self.utterances):,} utterances, {speakers} speakers; "
            f"{options.epochs} epochs of {len(plan)} batches of {plan.rows.shape[1]} pairs{many}"
        )
        if self.dataset.augmenter is not None:
            self._say(f"augmentations: {', '.join(self.dataset.augmenter.described())}")
        for note in self.notes:
            self._say(note)

    def _plan(self, epoch: int) -> EpochPlan:
        """Return this process's part of the plan of an epoch."""
        plan, many = self.planner.plan(epoch), self.processes
        if self.options.gather_batches:
            return plan.split(many.rank, many.world, self.planner.speakers)
        share = plan.share(many.rank, many.world)
        if not len(share):
            raise SasvError(
                f"an epoch has {len(plan)} batches, fewer than processes; use --gather-batches or fewer processes"
            )
        return share

    def _train_epoch(self) -> dict[str, Any]:
        """Run one epoch; return its row of the log."""
        options, at = self.options, self.at
        lr = self.schedule(at.epoch)
        for group in self.engine.optimiser.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        rise = min(1.0, (at.epoch + 1) / (options.margin_warmup_epochs + 1))
        set_margin(self.engine.system.head, options.margin_start + (options.margin - options.margin_start) * rise)
        plan = self._plan(at.epoch)
        sampler = PlanSampler(plan, options.seed, at.epoch, first=at.batch)
        self.engine.trained.train()
        quiet = not self.processes.main
        with (
            Progress(f"epoch {at.epoch + 1}/{options.epochs}", len(sampler), "batches", quiet) as progress,
            self.loader.batches(sampler) as batches,
        ):
            started = time.monotonic()
            for waves, labels in batches:
                at.sums["waited"] += time.monotonic() - started
                stepped = self._batch(waves, labels, plan)
                at.sums["seconds"] += time.monotonic() - started
                started = time.monotonic()
                steps = max(at.sums["batches"], 1)
                values = {"loss": at.sums["loss"] / steps, "accuracy": at.sums["accuracy"] / steps, "lr": lr}
                progress.add(1, f"loss {values['loss']:.3f}, accuracy {values['accuracy']:.1f}%, lr {lr:.2e}")
                if at.batch % BOARD_STEPS == 0:
                    self.board.add(at.epoch * len(plan) + at.batch, values, "step")
                if stepped:
                    self._save_when_due()
        sums = at.sums
        if not sums["pairs"] and not sums["skipped"]:
            raise SasvError(f"{options.utterances}: no training file could be read; the reasons are above")
        if sums["skipped"]:
            self._say(f"epoch {at.epoch + 1}: {sums['skipped']:.0f} steps skipped, their gradients were not finite")
        if self.engine.averages:
            self.engine.averages.after_epoch(self.engine.system, at.epoch)
        steps = max(sums["batches"], 1)
        at.epoch, at.batch, at.sums = at.epoch + 1, 0, no_sums()
        return {
            "epoch": at.epoch,
            "loss": sums["loss"] / steps,
            "accuracy": sums["accuracy"] / steps,
            "lr": lr,
            "skipped": int(sums["skipped"]),
            "pairs_per_second": sums["pairs"] / max(sums["seconds"], 1e-9),
            "seconds": sums["seconds"],
            "waited_for_data": sums["waited"],
        }

    def _batch(self, waves: Tensor, labels: Tensor, plan: EpochPlan) -> bool:
        """Train on one batch; return whether it ended an optimiser step."""
        at, accumulate = self.at, self.options.accumulate_batches
        self._seed(at.batch, 2)
        first = at.batch - at.batch % accumulate
        group = min(accumulate, len(plan) - first)
        last = at.batch + 1 == first + group
        seen = self.engine.backward(waves, labels, plan.labels.shape[1], group, last)
        for name, amount in (("loss", seen.loss), ("accuracy", seen.accuracy), ("batches", 1.0), ("pairs", seen.pairs)):
            at.sums[name] += amount * (seen.pairs > 0)
        at.batch += 1
        if last:
            at.sums["skipped"] += not self.engine.step(at.epoch)
        return last

    def _seed(self, batch: int, purpose: int) -> None:
        """Seed a batch's draws on the device (SpecAugment, dropout)."""
        number = batch * self.processes.world + self.processes.rank
        seed = np.random.default_rng([self.options.seed, self.at.epoch, number, purpose]).integers(1 << 31)
        seed_everything(int(seed))

    def _evaluate(self, row: dict[str, Any]) -> None:
        """Score the development trials and keep the model where it is the best so far."""
        assert self.development is not None
        checkpoint = self.checkpoint()
        result = self.development.evaluate(Model(checkpoint, self.device), self.processes)
        row |= {name: result[name] for name in ("sasv_eer", "sv_eer", "spf_eer")}
        metric, at = self.development.metric, self.at
        value = result[metric]
        assert value is not None
        if value <= at.best:  # among equals the longest trained
            at.best, at.best_epoch = float(value), at.epoch
            name = metric.removesuffix("_eer")
            threshold = result[f"{name}_threshold"]
            assert threshold is not None
            source = f"{name.upper()}-EER point of the development trials, epoch {at.epoch}"
            verifier = Verifier(threshold=float(threshold), threshold_source=source)
            checkpoint.specification.scoring = verifier.scoring.to_dict()
            checkpoint.specification.decision = verifier.decision_record()
            checkpoint.specification.training[f"dev_{metric}"] = value
            if self.processes.main:
                save_checkpoint(self.out / "best.safetensors", checkpoint)

    def checkpoint(self) -> Checkpoint:
        """Return the present model, its weights averaged where that is wanted, with its specification."""
        from sasv.core.version import __version__

        options, system, averages = self.options, self.engine.system, self.engine.averages
        self.processes.spread(self.engine.statistics)  # each has those of its own batches
        averaged = averages is not None and averages.ready
        if averages is not None and averaged:
            self._seed(0, 3)
            plan = self._plan(self.at.epoch)
            sampler = PlanSampler(plan, options.seed, self.at.epoch, max(0, len(plan) - options.batch_norm_batches))
            with self.loader.batches(sampler) as batches:
                system = averages.system(batches, self.device, self.processes)
        specification = Specification(
            **system.encoder.description(),
            classes=list(self.classes),
            spoof_index=self.spoof_index,
            loss=options.loss,
            licence=options.licence,
            training={
                "sasv": __version__,
                "epoch": self.at.epoch,
                "seed": options.seed,
                "loss": options.loss,
                "table": Path(options.utterances).name,
                "utterances": len(self.utterances),
                "init": Path(options.init).name,
                "average": options.weight_average if averaged else "none",
            },
        )
        return Checkpoint(specification, detached(system.encoder), detached(system.head), str(self.out))

    def _save_when_due(self) -> None:
        """Save every few minutes, and before stopping where a signal asked for it."""
        stop = self._asked_to_stop()
        if stop or time.monotonic() - self.saved >= 60 * self.options.save_minutes:
            self._save()
        if stop:
            self.processes.wait()
            raise Stopped

    def _stop_if_asked(self) -> None:
        """End where a signal came to any process; everything is saved."""
        if self._asked_to_stop():
            self.processes.wait()
            raise Stopped

    def _asked_to_stop(self) -> bool:
        """Whether a signal came to any of the processes; all of them ask at the same places."""
        asked = self.stop.signal is not None
        if self.processes.world == 1:
            return asked
        return float(self.processes.total(torch.tensor([float(asked)], device=self.device))) > 0

    def _save(self) -> None:
        """Write state and log. Where that fails the run goes on, with the last state that was written."""
        self.saved = time.monotonic()
        if not self.processes.main:
            return
        try:
            self.folder.save(asdict(self.at) | self.engine.state(), self.history)
        except SasvError as error:
            say(f"not saved, going on: {error}")

    def _resume(self) -> bool:
        """Load the state of an earlier run of the same options in the same folder."""
        state = self.folder.load()
        where = None if state is None else (state["epoch"], state["batch"])
        if len(set(self.processes.gather(where))) > 1:
            raise SasvError(f"{self.out}: processes see different states here; --out must be on a disk they all share")
        if state is None:
            return False
        changed = self.folder.check()
        try:
            notes = self.engine.restore(state, changed)
            found = {name: state[name] for name in vars(self.at) if name in state}
            self.at = Position(**({"evaluated": state["epoch"]} | found))  # once only evaluated epochs were saved
        except (ValueError, RuntimeError, KeyError) as error:
            reason = " ".join(str(error).split())[:300]
            raise SasvError(
                f"{self.folder.state}: of another model, or broken ({reason}); choose another --out, and --init to "
                "start from its weights"
            ) from error
        self.history = [_renamed(row) for row in state["history"]]
        if changed:
            self._say(f"going on with changed options: {'; '.join(self.folder.changed())}")
            self.at.batch, self.at.sums = 0, no_sums()  # the plan of the epoch may be another
        for note in notes:
            self._say(note)
        return True

    def _finish(self) -> Path:
        """Write the final model: the best on the development trials, else the last."""
        final = self.out / "model.safetensors"
        best = self.out / "best.safetensors"
        last = None if self.at.best_epoch else self.checkpoint()
        if self.processes.main:
            save_checkpoint(final, last or load_checkpoint(best))
        if self.development:
            found = f"{self.at.best:.2f}% in epoch {self.at.best_epoch}"
            self._say(f"best {self.development.metric} on development trials: {found}")
        self._say(f"model: {final}")
        self.processes.wait()
        return final


def _renamed(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of the log with today's column names; an older version wrote ``rate`` for ``lr``."""
    return {"lr" if name == "rate" else name: value for name, value in row.items()}


def describe(row: dict[str, Any], epochs: int) -> str:
    """Return the line that is said after an epoch."""
    parts = [f"epoch {row['epoch']}/{epochs}", f"loss {row['loss']:.3f}", f"accuracy {row['accuracy']:.1f}%"]
    parts += [
        f"dev {name.removesuffix('_eer').upper()}-EER {row[name]:.2f}%"
        for name in ("sasv_eer", "sv_eer", "spf_eer")
        if row.get(name) is not None
    ]
    return ", ".join([*parts, duration(row["seconds"])])
