"""One optimiser step after the other: precision, processes, accumulation, skipped steps, averages."""

import contextlib
import math
import random
import shutil
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sasv.core.errors import SasvError
from sasv.encoders.base import Encoder
from sasv.losses.base import Loss, LossOutput
from sasv.parallel.processes import Processes
from sasv.training.averages import Averages
from sasv.training.modules import System, detached
from sasv.training.normalisation import normalise_globally
from sasv.training.optimisers import make_optimiser, parameter_groups
from sasv.training.options import TrainOptions

MOST_SKIPPED = 5
"""So many steps without a finite gradient in a row end a run."""


class Seen(NamedTuple):
    """A batch of all processes: mean loss and accuracy (percent), and the pairs that count."""

    loss: float
    accuracy: float
    pairs: float


class Engine:
    """Trains a system on batches.

    Args:
        options: see TrainOptions.
        encoder: the encoder.
        head: its loss.
        device: where they run.
        processes: this process among those that train together.
    """

    def __init__(self, options: TrainOptions, encoder: Encoder, head: Loss, device: torch.device, processes: Processes):
        self.options, self.device, self.processes = options, device, processes
        if options.sync_batch_norm and processes.world > 1:
            normalise_globally(encoder, device)
        system = System(encoder, head, options.precision, options.gather_batches, processes, options.augment)
        self.system = system.to(device)
        if options.channels_last:
            encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.parameters = list(self.system.parameters())
        norms = [part for part in encoder.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
        self.statistics = [buffer for part in norms for buffer in part.buffers()]
        self.averages: Averages | None = None
        if options.weight_average != "none":
            self.averages = Averages(
                self.system, options.weight_average, options.ema_decay, options.average_start_epoch
            )
        if options.compile:
            if device.type == "cpu" and not any(map(shutil.which, ("g++", "c++", "clang++"))):
                raise SasvError("--compile needs a C++ compiler on a CPU and none is here; install g++ or leave it out")
            encoder.network = torch.compile(encoder.network)  # type: ignore[method-assign]
        self.trained: nn.Module = self.system
        if processes.world > 1:
            self.trained = DistributedDataParallel(self.system, [device] if device.type == "cuda" else None)
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # crops are all of one length
        groups = parameter_groups(encoder, head)
        self.optimiser = make_optimiser(options.optimiser, groups, options.max_lr, options.weight_decay)
        self.scaler = torch.amp.GradScaler(device.type, enabled=options.precision == "float16")
        self.skipped = 0  # steps in a row

    def backward(self, waves: Tensor, labels: Tensor, wanted: int, group: int = 1, last: bool = True) -> Seen:
        """Add the gradients of a batch.

        Args:
            waves: (items, 2, samples); fewer items than ``wanted`` where files could not be read, even none.
            labels: (items,) classes.
            wanted: items of a batch whose files can all be read.
            group: batches that make one step.
            last: whether this is the last of them.
        """
        pairs, many = len(labels), self.processes
        if not pairs:
            if many.world == 1:
                return Seen(0.0, 0.0, 0.0)
            # The other processes wait for this one: it takes part with silence that counts nothing.
            waves, labels = torch.zeros(2, *waves.shape[1:]), torch.full((2,), -1 if self.options.gather_batches else 0)
        waves, labels = (part.to(self.device, non_blocking=True) for part in (waves, labels))
        before = [buffer.clone() for buffer in self.statistics]
        alone = isinstance(self.trained, DistributedDataParallel) and not last
        with self.trained.no_sync() if alone else contextlib.nullcontext():  # type: ignore[operator]
            output: LossOutput = self.trained(waves, labels, wanted)
            value = output.value if pairs or self.options.gather_batches else 0.0 * output.value
            self.scaler.scale(value / group).backward()
        loss = float(value.detach())
        broken = not math.isfinite(loss)
        counts = not broken and pairs > 0
        own = [loss, float(output.accuracy), 1.0, pairs] if counts else [0.0] * 4
        totals = many.total(torch.tensor([*own, broken]).to(self.device)).tolist()
        if totals[4] or not pairs:  # a step will be skipped: batch-norm statistics must not keep it either
            for buffer, kept in zip(self.statistics, before):
                buffer.copy_(kept)
        if totals[4] or not totals[2]:
            return Seen(0.0, 0.0, 0.0)
        return Seen(totals[0] / totals[2], totals[1] / totals[2], totals[3])

    def step(self, epoch: int) -> bool:
        """Take one optimiser step in an epoch counted from 0; return False where its gradient was not finite.

        Raises:
            SasvError: that happened too often in a row.
        """
        if all(parameter.grad is None for parameter in self.parameters):  # nothing of the batch could be read
            return True
        self.scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.options.max_grad_norm or math.inf)
        finite = bool(torch.isfinite(norm))
        if finite or self.scaler.is_enabled():  # the scaler skips by itself, and lowers its scale
            self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        if finite and self.averages:
            self.averages.after_step(self.system, epoch)
        self.skipped = 0 if finite else self.skipped + 1
        # float16 starts with a large scale and finds its own: some skipped steps belong to it
        if self.skipped >= MOST_SKIPPED * (4 if self.scaler.is_enabled() else 1):
            raise SasvError(
                f"{self.skipped} steps in a row without a finite gradient, up to epoch {epoch + 1}; the last "
                "checkpoint is kept: lower --max-lr, set --max-grad-norm 5, or use --precision float32"
            )
        return finite

    def state(self) -> dict[str, Any]:
        """Return everything that a later run needs to go on."""
        state = {
            "system": detached(self.system),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
        }
        return state | ({"averages": detached(self.averages.model)} if self.averages else {})

    def restore(self, state: dict[str, Any], changed: bool) -> list[str]:
        """Take up a state; return notes of what starts anew.

        Args:
            state: what ``state`` returned.
            changed: whether options changed, so that optimiser and averages may not fit.

        Raises:
            ValueError, KeyError, RuntimeError: the state does not fit.
        """
        self.system.load_state_dict(state["system"])
        if self.averages and ("averages" in state or not changed):
            self.averages.model.load_state_dict(state["averages"])
        kept, wanted = (groups["param_groups"][0] for groups in (state["optimiser"], self.optimiser.state_dict()))
        if kept.keys() != wanted.keys() and changed:
            return ["the optimiser starts anew"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        for group in self.optimiser.param_groups:
            group["weight_decay"] = self.options.weight_decay
        return []


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed % (1 << 32))  # noqa: NPY002 (libraries that still draw from it)
    torch.manual_seed(seed)
