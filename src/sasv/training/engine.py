"""Performs the optimiser steps: precision, processes, gradient accumulation, skipped steps, weight
averages.
"""

import contextlib
import math
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sasv.core.errors import SasvError
from sasv.losses.base import LossOutput
from sasv.parallel.processes import Processes
from sasv.training.averages import Averages
from sasv.training.modules import System, detached
from sasv.training.normalisation import batch_norms

MAX_SKIPPED_STEPS = 5
"""This number of successive steps without a finite gradient ends a run."""

MAX_SKIPPED_STEPS_SCALED = 20
"""The same for float16, whose gradients start with a large scale that skipped steps reduce."""


class Seen(NamedTuple):
    """Mean loss, accuracy in percent, and number of valid pairs of a batch over all processes.

    ``anchor_cosine`` is the mean cosine of bona fide speech with the anchor, None if there is no
    anchor.
    """

    loss: float
    accuracy: float
    pairs: float
    anchor_cosine: float | None = None


NOTHING_SEEN = Seen(loss=0.0, accuracy=0.0, pairs=0.0)


class Engine:
    """Trains a system on batches.

    Args:
        system: encoder and loss head, on the device.
        optimiser: optimiser of their parameters.
        averages: averages of their weights, or None.
        device: device on which they run.
        processes: this process among those that train together.
        max_grad_norm: the gradient is clipped to this norm; 0 does not clip.
        scale_gradients: whether gradients are scaled, as float16 needs.
    """

    def __init__(
        self,
        system: System,
        optimiser: torch.optim.Optimizer,
        averages: Averages | None,
        device: torch.device,
        processes: Processes,
        max_grad_norm: float = 0.0,
        scale_gradients: bool = False,
    ):
        self.system = system
        self.optimiser = optimiser
        self.averages = averages
        self.device = device
        self.processes = processes
        self.max_grad_norm = max_grad_norm
        self.scaler = torch.amp.GradScaler(device.type, enabled=scale_gradients)
        self.parameters = list(system.parameters())
        self.statistics = batch_norm_buffers(system.encoder)
        self.kept = [buffer.clone() for buffer in self.statistics]
        self.skipped = 0  # successive steps
        self.trained: nn.Module = system
        if processes.world > 1:
            devices = [device] if device.type == "cuda" else None
            self.trained = DistributedDataParallel(system, devices)
        if device.type == "cuda":
            # All crops have the same length. The fastest algorithm differs between runs, though.
            torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()

    def set_lr(self, lr: float) -> None:
        """Set the learning rate, multiplied by the ``lr_scale`` of each parameter group."""
        for group in self.optimiser.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)

    def backward(
        self,
        waves: Tensor,
        labels: Tensor,
        wanted: int,
        group: int = 1,
        last: bool = True,
        meanwhile: Callable[[], None] | None = None,
    ) -> Seen:
        """Accumulate the gradients of a batch.

        Args:
            waves: (items, 2, samples); fewer items than ``wanted``, or even none, if files could
                not be read.
            labels: (items,) classes.
            wanted: number of items of a complete batch.
            group: number of batches per optimiser step.
            last: whether this is the last batch of the step.
            meanwhile: is called while a GPU computes.
        """
        pairs = len(labels)
        if not pairs:
            if self.processes.world == 1:
                return NOTHING_SEEN
            # The other processes wait for this one, so it takes part with silence of weight zero.
            waves = torch.zeros(2, *waves.shape[1:])
            labels = torch.full((2,), -1 if self.system.gather else 0)
        copy_all(self.kept, self.statistics)
        output = self._add_gradients(waves, labels, wanted, group, last, silent=not pairs)
        if meanwhile is not None:
            meanwhile()
        # One transfer from the device: each one waits until all its work is done.
        loss = output.value.detach().float()
        zero = torch.zeros_like(loss)
        anchored = output.anchor_cosine is not None
        cosine = zero if output.anchor_cosine is None else output.anchor_cosine.detach()
        finite = torch.isfinite(loss)
        own = torch.stack((loss, output.accuracy.detach(), cosine, zero + 1, zero + pairs))
        own = torch.where(finite & bool(pairs), own, 0.0)
        totals = torch.cat((own, (~finite)[None].float()))
        losses, accuracies, cosines, count, all_pairs, broken = self.processes.total(
            totals
        ).tolist()
        if broken or not pairs:
            # This step will be skipped, or the batch is silence: batch-norm statistics must not
            # include it either.
            copy_all(self.statistics, self.kept)
        if broken or not count:
            return NOTHING_SEEN
        return Seen(
            loss=losses / count,
            accuracy=accuracies / count,
            pairs=all_pairs,
            anchor_cosine=cosines / count if anchored else None,
        )

    def _add_gradients(
        self, waves: Tensor, labels: Tensor, wanted: int, group: int, last: bool, silent: bool
    ) -> LossOutput:
        """Compute the loss and accumulate its gradients, which the processes exchange with the last
        batch of a step.

        Silence contributes zeros. If batches are gathered, its labels already exclude it.
        """
        waves = waves.to(self.device, non_blocking=True)
        labels = labels.to(self.device, non_blocking=True)
        exchange: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        if isinstance(self.trained, DistributedDataParallel) and not last:
            exchange = self.trained.no_sync()
        with exchange:
            output: LossOutput = self.trained(waves, labels, wanted)
            value = output.value
            if silent and not self.system.gather:
                value = 0.0 * value
            self.scaler.scale(value / group).backward()
        if self.system.replays_graphs and not last:
            # The next replay writes its gradients where those of this one are.
            for parameter in self.parameters:
                if parameter.grad is not None:
                    parameter.grad = parameter.grad.clone()
        return output

    def step(self, epoch: int) -> bool:
        """Take one optimiser step in epoch ``epoch``, counted from 0.

        Returns:
            Whether its gradient was finite.

        Raises:
            SasvError: too many successive gradients were not finite.
        """
        if all(parameter.grad is None for parameter in self.parameters):
            return True  # nothing of the batch could be read
        self.scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm or math.inf)
        if self.scaler.is_enabled():
            # It skips the step itself if the gradient is not finite, without waiting for the GPU.
            self.scaler.step(self.optimiser)
            self.scaler.update()
        finite = bool(torch.isfinite(norm))
        if finite and not self.scaler.is_enabled():
            self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        if finite and self.averages:
            self.averages.after_step(self.system, epoch)
        self._count_skipped(finite, epoch)
        return finite

    def _count_skipped(self, finite: bool, epoch: int) -> None:
        """Count successive steps without a finite gradient. Raise SasvError if there are too
        many.
        """
        if finite:
            self.skipped = 0
            return
        self.skipped += 1
        most = MAX_SKIPPED_STEPS_SCALED if self.scaler.is_enabled() else MAX_SKIPPED_STEPS
        if self.skipped >= most:
            raise SasvError(
                f"{self.skipped} steps in a row without a finite gradient, up to epoch "
                f"{epoch + 1}; "
                "the last checkpoint is kept: lower --max-lr, set --max-grad-norm 5, or use "
                "--precision float32"
            )

    def state(self) -> dict[str, Any]:
        """Return everything that is needed to resume the training."""
        state = {
            "system": detached(self.system),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
        }
        if self.averages:
            state["averages"] = detached(self.averages.model)
        return state

    def restore(self, state: dict[str, Any], changed: bool) -> list[str]:
        """Restore a state; return notes on what could not be restored.

        Args:
            state: the result of ``state``.
            changed: whether options have changed, so that optimiser and averages may not match.

        Raises:
            ValueError, KeyError, RuntimeError: the state does not match the modules.
        """
        self.system.load_state_dict(state["system"])
        if self.averages and ("averages" in state or not changed):
            self.averages.model.load_state_dict(state["averages"])
        groups = self.optimiser.param_groups
        kept = state["optimiser"]["param_groups"][0]
        wanted = self.optimiser.state_dict()["param_groups"][0]
        if kept.keys() != wanted.keys() and changed:
            return ["the optimiser starts again without its previous state"]
        # The state contains the weight decay of the earlier run, but that of the options applies.
        weight_decays = [group["weight_decay"] for group in groups]
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        for group, weight_decay in zip(self.optimiser.param_groups, weight_decays):
            group["weight_decay"] = weight_decay
        return []


def batch_norm_buffers(module: nn.Module) -> list[Tensor]:
    """Return the running statistics of every batch norm inside a module."""
    return [buffer for part in batch_norms(module) for buffer in part.buffers()]


def copy_all(targets: list[Tensor], sources: list[Tensor]) -> None:
    """Copy tensors into others, all at once: a hundred small copies would take a millisecond."""
    if targets:
        with torch.no_grad():
            torch._foreach_copy_(targets, sources)


def seed_everything(seed: int) -> None:
    """Seed the random number generators of Python, NumPy, and PyTorch."""
    random.seed(seed)
    np.random.seed(seed % (1 << 32))  # noqa: NPY002 (libraries that still draw from it)
    torch.manual_seed(seed)
