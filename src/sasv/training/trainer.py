"""The trainer of all stages, on one device: batches -> encoder -> loss, selection by development trials.

Everything random is a function of (seed, epoch, batch, item), so no random state needs saving: a run that is killed
and started again by the same command goes on at the last saved batch and ends with the same weights.
"""

import contextlib
import csv
import io
import json
import math
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sasv.batches.augment import Augmenter
from sasv.batches.dataset import CropDataset, PlanSampler, loader
from sasv.batches.plan import PairPlanner
from sasv.checkpoints import Checkpoint, Specification, load_checkpoint, save_checkpoint
from sasv.checkpoints.store import torch_bytes
from sasv.core.errors import CheckpointError, SasvError
from sasv.core.files import sha256, write_bytes, write_json, write_text
from sasv.core.memory import keep_memory
from sasv.core.progress import Progress, duration, say
from sasv.embeddings.model import Model, pick_device
from sasv.encoders.base import parameters_of
from sasv.tables import load_utterances
from sasv.training.modules import SPOOF_CLASS, class_list, detached, make_modules, set_margin
from sasv.training.optimisers import make_optimiser
from sasv.training.options import TrainOptions
from sasv.training.provenance import environment
from sasv.training.schedules import SCHEDULES
from sasv.training.selection import DevelopmentSet

FREE = {"out", "workers", "device", "epochs", "save_minutes"}
"""Options that may change when a run goes on."""

SUMS = 6
"""Of an epoch so far: loss, accuracy, batches, pairs, seconds, skipped steps."""

MOST_SKIPPED = 5
"""So many steps without a finite gradient in a row end a run."""


class _Stopped(Exception):
    """SIGTERM came; the state is saved."""


class Trainer:
    """One training run.

    Args:
        options: see TrainOptions.

    Raises:
        SasvError: options or tables that do not fit each other.
    """

    def __init__(self, options: TrainOptions):
        self.options = options
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
        self.planner = PairPlanner(
            labels,
            self.utterances.spoofed,
            self.utterances.attacks[0],
            len(self.classes) - 1,
            options.speakers,
            options.spoofs,
            options.most,
            options.batches,
            options.seed,
        )
        augmenter = Augmenter(options.noises, options.rirs) if options.augment else None
        self.dataset = CropDataset(self.utterances, options.frames, augmenter)
        self.encoder, self.head, self.notes = make_modules(options, len(self.classes))
        self.encoder.augment = options.augment
        self.encoder.to(self.device)
        self.head.to(self.device)
        self.parameters = [*self.encoder.parameters(), *self.head.parameters()]
        self.optimiser = make_optimiser(options.optimiser, self.parameters, options.highest, options.weight_decay)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=options.precision == "float16")
        self.skipped = 0  # steps in a row
        self.epoch = self.batch = 0
        self.sums = [0.0] * SUMS
        self.saved = time.monotonic()
        self.stop = False
        self.best: float = math.inf
        self.best_epoch = 0
        self.history: list[dict[str, Any]] = []

    def run(self) -> Path:
        """Train to the last epoch and return the path of the final model."""
        keep_memory()
        self.out.mkdir(parents=True, exist_ok=True)
        resumed = self._resume()
        write_json(self.out / "options.json", self._described())
        write_json(self.out / "environment.json", environment())
        self._introduce(resumed)
        with self._terminable():
            while self.epoch < self.options.epochs:
                row = self._train_epoch()
                due = self.epoch % self.options.evaluate_every == 0 or self.epoch == self.options.epochs
                if self.development and due:
                    self._evaluate(row)
                self.history.append(row)
                self._save()
                say(describe(row, self.options.epochs))
        return self._finish()

    def _described(self) -> dict[str, Any]:
        """Return what a run must agree on to go on: the options, and the content of the training table."""
        return asdict(self.options) | {"table_sha256": sha256(self.utterances.table.buffer.tobytes())}

    @contextlib.contextmanager
    def _terminable(self) -> Iterator[None]:
        """Have SIGTERM save after the present batch and stop."""
        before = None
        with contextlib.suppress(ValueError):  # only the main thread may set it
            before = signal.signal(signal.SIGTERM, lambda *_: setattr(self, "stop", True))
        try:
            yield
        except _Stopped:
            raise SasvError(f"{self.out}: stopped by SIGTERM, saved; the same command goes on from here") from None
        finally:
            if before is not None:
                signal.signal(signal.SIGTERM, before)

    def _introduce(self, resumed: bool) -> None:
        options = self.options
        if resumed:
            inside = f", batch {self.batch}" if self.batch else ""
            say(f"{self.out}: going on after epoch {self.epoch}{inside}")
        speakers = len(self.classes) - (self.spoof_index is not None)
        plan = self.planner.plan(0)
        say(
            f"{options.encoder}, {parameters_of(self.encoder):,} parameters, on {self.device}; "
            f"{len(self.utterances):,} utterances, {speakers} speakers; "
            f"{options.epochs} epochs of {len(plan)} batches of {plan.rows.shape[1]} pairs"
        )
        if self.dataset.augmenter is not None:
            say(f"augmentations: {', '.join(self.dataset.augmenter.choices)}")
        for note in self.notes:
            say(note)

    def _train_epoch(self) -> dict[str, Any]:
        """Run one epoch; return its row of the log."""
        options = self.options
        schedule = SCHEDULES[options.schedule]
        rate = schedule(self.epoch, options.cycle, options.highest, options.lowest, options.warmup, options.decay)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        set_margin(self.head, options.margin * min(1.0, (self.epoch + 1) / (options.margin_warmup + 1)))
        sampler = PlanSampler(self.planner.plan(self.epoch), options.seed, self.epoch, first=self.batch)
        batches = loader(self.dataset, sampler, options.workers, pin=self.device.type == "cuda")
        self.encoder.train()
        self.head.train()
        with Progress(f"epoch {self.epoch + 1}/{options.epochs}", len(sampler), "batches") as progress:
            started = time.monotonic()
            for waves, labels in batches:
                if len(labels):
                    self._seed()
                    value, accuracy = self._backward(waves.to(self.device), labels.to(self.device))
                    if math.isfinite(value):
                        self._count(value, accuracy, 1, len(labels))
                self.batch += 1
                whole = self.batch % options.accumulate == 0 or self.batch == len(sampler.plan)
                if whole:
                    self._step()
                self.sums[4] += time.monotonic() - started
                started = time.monotonic()
                loss, correct, steps = self.sums[0], self.sums[1], max(self.sums[2], 1)
                progress.add(1, f"loss {loss / steps:.3f}, accuracy {correct / steps:.1f}%, rate {rate:.2e}")
                if whole:
                    self._save_when_due()
        loss, correct, steps, pairs, seconds, skipped = self.sums
        if not pairs and not skipped:
            raise SasvError(f"{options.utterances}: no training file could be read; the reasons are above")
        if skipped:
            say(f"epoch {self.epoch + 1}: {skipped:.0f} steps skipped, their gradients were not finite")
        steps = max(steps, 1)
        self.epoch, self.batch, self.sums = self.epoch + 1, 0, [0.0] * SUMS
        return {
            "epoch": self.epoch,
            "loss": loss / steps,
            "accuracy": correct / steps,
            "rate": rate,
            "skipped": int(skipped),
            "pairs_per_second": pairs / seconds,
            "seconds": seconds,
        }

    def _seed(self) -> None:
        """Seed this batch's draws on the device (SpecAugment, dropout)."""
        seed_everything(int(np.random.default_rng([self.options.seed, self.epoch, self.batch, 2]).integers(1 << 31)))

    def _count(self, *values: float) -> None:
        for index, value in enumerate(values):
            self.sums[index] += value

    def _save_when_due(self) -> None:
        """Save every few minutes, and before stopping where SIGTERM asked for it."""
        if self.stop or time.monotonic() - self.saved >= 60 * self.options.save_minutes:
            self._save()
        if self.stop:
            raise _Stopped

    def _backward(self, waves: Tensor, labels: Tensor) -> tuple[float, float]:
        """Add the gradients of (items, 2, samples); return loss and accuracy."""
        items = waves.shape[0]
        statistics = [buffer.clone() for buffer in self.encoder.buffers()]
        low = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(self.options.precision)
        with torch.autocast(self.device.type, low, enabled=low is not None):
            flat = waves.transpose(0, 1).reshape(2 * items, -1)
            embeddings = self.encoder(flat).reshape(2, items, -1).transpose(0, 1)
        output = self.head(embeddings.float(), labels)
        self.scaler.scale(output.value / self.options.accumulate).backward()
        value = float(output.value.detach())
        if not math.isfinite(value):  # the step will be skipped: batch-norm statistics must not keep it either
            for buffer, before in zip(self.encoder.buffers(), statistics):
                buffer.copy_(before)
        return value, float(output.accuracy)

    def _step(self) -> None:
        """Take one optimiser step; a gradient that is not finite is skipped and counted."""
        if all(parameter.grad is None for parameter in self.parameters):  # nothing of the batch could be read
            return
        self.scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.options.clip or math.inf)
        finite = bool(torch.isfinite(norm))
        if finite or self.scaler.is_enabled():  # the scaler skips by itself, and lowers its scale
            self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        self.skipped = 0 if finite else self.skipped + 1
        self.sums[5] += not finite
        # float16 starts with a large scale and finds its own: some skipped steps belong to it
        if self.skipped >= MOST_SKIPPED * (4 if self.scaler.is_enabled() else 1):
            raise SasvError(
                f"{self.skipped} steps in a row without a finite gradient, up to epoch {self.epoch + 1}; the last "
                "checkpoint is kept: lower --highest, set --clip 5, or use --precision float32"
            )

    def _evaluate(self, row: dict[str, Any]) -> None:
        """Score the development trials and keep the model where it is the best so far."""
        assert self.development is not None
        checkpoint = self.checkpoint()
        result = self.development.evaluate(Model(checkpoint, self.device))
        row |= {name: result[name] for name in ("sasv_eer", "sv_eer", "spf_eer")}
        value = result[self.development.metric]
        assert value is not None
        if value <= self.best:  # among equals the longest trained
            self.best, self.best_epoch = float(value), self.epoch
            name = self.development.metric.removesuffix("_eer")
            threshold = result[f"{name}_threshold"]
            assert threshold is not None
            checkpoint.specification.threshold = float(threshold)
            checkpoint.specification.threshold_source = (
                f"{name.upper()}-EER point of the development trials, epoch {self.epoch}"
            )
            checkpoint.specification.training[f"dev_{self.development.metric}"] = value
            save_checkpoint(self.out / "best.safetensors", checkpoint)

    def checkpoint(self) -> Checkpoint:
        """Return the present model with its specification."""
        from sasv import __version__

        options = self.options
        specification = Specification(
            encoder=options.encoder,
            sizes=self.encoder.size_values(),
            min_samples=self.encoder.min_samples,
            classes=list(self.classes),
            spoof_index=self.spoof_index,
            loss=options.loss,
            licence=options.licence,
            training={
                "sasv": __version__,
                "epoch": self.epoch,
                "seed": options.seed,
                "loss": options.loss,
                "table": Path(options.utterances).name,
                "utterances": len(self.utterances),
                "init": Path(options.init).name,
            },
        )
        return Checkpoint(specification, detached(self.encoder), detached(self.head), str(self.out))

    def _save(self) -> None:
        """Write the state of the run and its log, each whole or not at all."""
        state = {
            "encoder": detached(self.encoder),
            "head": detached(self.head),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "epoch": self.epoch,
            "batch": self.batch,
            "sums": self.sums,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "history": self.history,
        }
        write_bytes(self.out / "state.pt", torch_bytes(state))
        text = io.StringIO()
        names = list(dict.fromkeys(name for entry in self.history for name in entry))
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.history)
        write_text(self.out / "metrics.csv", text.getvalue())
        self.saved = time.monotonic()

    def _resume(self) -> bool:
        """Load the state of an earlier run of the same options in the same folder."""
        path = self.out / "state.pt"
        if not path.exists():
            return False
        before = (self.out / "options.json").read_text() if (self.out / "options.json").exists() else "{}"
        self._check_options(before)
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise CheckpointError(f"{path}: broken training state ({error}); remove it to begin anew") from error
        self.encoder.load_state_dict(state["encoder"])
        self.head.load_state_dict(state["head"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        self.epoch, self.batch, self.sums = state["epoch"], state["batch"], state["sums"]
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self.history = state["history"]
        return True

    def _check_options(self, before: str) -> None:
        old, new = json.loads(before), self._described()
        changed = [
            f"{name} was {old.get(name)!r}, now {new[name]!r}"
            for name in new
            if name not in FREE and old.get(name) != new[name]
        ]
        if changed:
            raise SasvError(
                f"{self.out}: holds a run with other options ({'; '.join(changed)}); choose another --out, or remove it"
            )

    def _finish(self) -> Path:
        """Write the final model: the best on the development trials, else the last."""
        final = self.out / "model.safetensors"
        best = self.out / "best.safetensors"
        chosen = load_checkpoint(best) if best.exists() else self.checkpoint()
        save_checkpoint(final, chosen)
        if self.development:
            say(f"best {self.development.metric} on development trials: {self.best:.2f}% in epoch {self.best_epoch}")
        say(f"model: {final}")
        return final


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed % (1 << 32))  # noqa: NPY002 (libraries that still draw from it)
    torch.manual_seed(seed)


def describe(row: dict[str, Any], epochs: int) -> str:
    """Return the line that is said after an epoch."""
    parts = [f"epoch {row['epoch']}/{epochs}", f"loss {row['loss']:.3f}", f"accuracy {row['accuracy']:.1f}%"]
    parts += [
        f"dev {name.removesuffix('_eer').upper()}-EER {row[name]:.2f}%"
        for name in ("sasv_eer", "sv_eer", "spf_eer")
        if row.get(name) is not None
    ]
    return ", ".join([*parts, duration(row["seconds"])])
