"""The trainer of all stages, on one process or many: batches -> encoder -> loss, selection by development trials.

Everything random is a function of (seed, epoch, batch, item), so no random state needs saving: a run that is killed
and started again by the same command goes on at the last saved batch and ends with the same weights.
"""

import contextlib
import math
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from sasv.batches.augment import Augmenter
from sasv.batches.dataset import CropDataset, PlanSampler, loader
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
from sasv.training.modules import SPOOF_CLASS, class_list, detached, make_modules, set_margin
from sasv.training.options import TrainOptions
from sasv.training.run_folder import Board, RunFolder
from sasv.training.schedules import SCHEDULES
from sasv.training.selection import DevelopmentSet

BOARD_STEPS = 10
"""Steps between the values on TensorBoard."""


class _Stopped(Exception):
    """SIGTERM came; the state is saved."""


def no_sums() -> dict[str, float]:
    """Return the sums of an epoch that has not begun."""
    return dict.fromkeys(("loss", "accuracy", "batches", "pairs", "seconds", "waited", "skipped"), 0.0)


@dataclass
class Position:
    """Where a run is: whole epochs, batches of this one with their sums, and the best epoch so far."""

    epoch: int = 0
    batch: int = 0
    sums: dict[str, float] = field(default_factory=no_sums)
    best: float = math.inf
    best_epoch: int = 0


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
        seed_everything(options.seed)
        self.utterances = load_utterances(options.utterances, options.where)
        if not options.spoofs:  # Stage 1 has no spoof class
            self.utterances = self.utterances.take(~self.utterances.spoofed)
        self.development = DevelopmentSet.load(options)
        self.classes, labels = class_list(self.utterances)
        if options.spoofs and self.classes[-1] != SPOOF_CLASS:
            raise SasvError(f"{options.utterances}: no row has label spoof, but --spoofs {options.spoofs} wants some")
        self.spoof_index = len(self.classes) - 1 if self.classes[-1] == SPOOF_CLASS else None
        joint = self.processes.world if options.gather else 1
        self.planner = PairPlanner(
            labels,
            self.utterances.spoofed,
            self.utterances.attacks[0],
            len(self.classes) - 1,
            options.speakers * joint,
            options.spoofs * joint,
            options.most,
            options.batches,
            options.seed,
        )
        augmenter = Augmenter(options.noises, options.rirs, options.codecs, options.codec_share)
        self.dataset = CropDataset(self.utterances, options.frames, augmenter if options.augment else None)
        encoder, head, self.notes = make_modules(options, self.classes)
        self.engine = Engine(options, encoder, head, self.device, self.processes)
        self.at = Position()
        self.saved = time.monotonic()
        self.asked = self.stop = False  # SIGTERM came to this process; all processes know that it came to one
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
            with self._terminable():
                while self.at.epoch < self.options.epochs:
                    row = self._train_epoch()
                    due = self.at.epoch % self.options.evaluate_every == 0 or self.at.epoch == self.options.epochs
                    if self.development and due:
                        self._evaluate(row)
                    self.history.append(row)
                    self.board.add(self.at.epoch * length, row, "epoch")
                    self._save()
                    self._say(describe(row, self.options.epochs))
            return self._finish()

    def _say(self, text: str) -> None:
        if self.processes.main:
            say(text)

    @contextlib.contextmanager
    def _terminable(self) -> Iterator[None]:
        """Have SIGTERM save after the present batch and stop."""
        before = None
        with contextlib.suppress(ValueError):  # only the main thread may set it
            before = signal.signal(signal.SIGTERM, lambda *_: setattr(self, "asked", True))
        try:
            yield
        except _Stopped:
            raise SasvError(f"{self.out}: stopped by SIGTERM, saved; the same command goes on from here") from None
        finally:
            if before is not None:
                signal.signal(signal.SIGTERM, before)

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
        if self.options.gather:
            return plan.split(many.rank, many.world, self.planner.speakers)
        share = plan.share(many.rank, many.world)
        if not len(share):
            raise SasvError(f"an epoch has {len(plan)} batches, fewer than processes; use --gather or fewer processes")
        return share

    def _train_epoch(self) -> dict[str, Any]:
        """Run one epoch; return its row of the log."""
        options, at = self.options, self.at
        schedule = SCHEDULES[options.schedule]
        rate = schedule(at.epoch, options.cycle, options.highest, options.lowest, options.warmup, options.decay)
        for group in self.engine.optimiser.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        rise = min(1.0, (at.epoch + 1) / (options.margin_warmup + 1))
        set_margin(self.engine.system.head, options.margin_start + (options.margin - options.margin_start) * rise)
        plan = self._plan(at.epoch)
        sampler = PlanSampler(plan, options.seed, at.epoch, first=at.batch)
        batches = loader(self.dataset, sampler, options.workers, pin=self.device.type == "cuda")
        self.engine.trained.train()
        quiet = not self.processes.main
        with Progress(f"epoch {at.epoch + 1}/{options.epochs}", len(sampler), "batches", quiet) as progress:
            started = time.monotonic()
            for waves, labels in alive(batches):
                at.sums["waited"] += time.monotonic() - started
                stepped = self._batch(waves, labels, plan)
                at.sums["seconds"] += time.monotonic() - started
                started = time.monotonic()
                steps = max(at.sums["batches"], 1)
                values = {"loss": at.sums["loss"] / steps, "accuracy": at.sums["accuracy"] / steps, "rate": rate}
                progress.add(1, f"loss {values['loss']:.3f}, accuracy {values['accuracy']:.1f}%, rate {rate:.2e}")
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
            "rate": rate,
            "skipped": int(sums["skipped"]),
            "pairs_per_second": sums["pairs"] / max(sums["seconds"], 1e-9),
            "seconds": sums["seconds"],
            "waited_for_data": sums["waited"],
        }

    def _batch(self, waves: Tensor, labels: Tensor, plan: EpochPlan) -> bool:
        """Train on one batch; return whether it ended an optimiser step."""
        at, accumulate = self.at, self.options.accumulate
        self._seed(at.batch, 2)
        first = at.batch - at.batch % accumulate
        group = min(accumulate, len(plan) - first)
        last = at.batch + 1 == first + group
        seen = self.engine.backward(waves, labels, plan.labels.shape[1], group, last, self.asked)
        self.stop = seen.stop
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
            sampler = PlanSampler(plan, options.seed, self.at.epoch, max(0, len(plan) - options.statistics_batches))
            batches = loader(self.dataset, sampler, options.workers)
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
                "average": options.average if averaged else "none",
            },
        )
        return Checkpoint(specification, detached(system.encoder), detached(system.head), str(self.out))

    def _save_when_due(self) -> None:
        """Save every few minutes, and before stopping where SIGTERM asked for it."""
        if self.stop or time.monotonic() - self.saved >= 60 * self.options.save_minutes:
            self._save()
        if self.stop:
            self.processes.wait()
            raise _Stopped

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
            self.at = Position(**{name: state[name] for name in vars(self.at)})
        except (ValueError, RuntimeError, KeyError) as error:
            reason = " ".join(str(error).split())[:300]
            raise SasvError(
                f"{self.folder.state}: of another model, or broken ({reason}); choose another --out, and --init to "
                "start from its weights"
            ) from error
        self.history = state["history"]
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


def alive(batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches; SasvError where a loader process was killed."""
    try:
        yield from batches
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise SasvError(
            f"a loader process died ({error}); often memory is short: the same command goes on from the last saved "
            "state, try fewer --workers"
        ) from error


def describe(row: dict[str, Any], epochs: int) -> str:
    """Return the line that is said after an epoch."""
    parts = [f"epoch {row['epoch']}/{epochs}", f"loss {row['loss']:.3f}", f"accuracy {row['accuracy']:.1f}%"]
    parts += [
        f"dev {name.removesuffix('_eer').upper()}-EER {row[name]:.2f}%"
        for name in ("sasv_eer", "sv_eer", "spf_eer")
        if row.get(name) is not None
    ]
    return ", ".join([*parts, duration(row["seconds"])])
