"""Learning rate and margin as pure functions of the epoch, so that no state has to be saved."""

import math
from dataclasses import dataclass

from sasv.core.errors import SasvError
from sasv.training.options import ScheduleOptions


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Learning rate of each epoch.

    Attributes:
        max_lr: peak learning rate.
        min_lr: lowest learning rate.
        cycle_epochs: epochs of a cycle.
        warmup_epochs: epochs of linear warm-up.
        lr_decay: factor by which the peak shrinks with each cycle.

    Raises:
        SasvError: the values contradict each other.
    """

    max_lr: float = 1e-3
    min_lr: float = 1e-8
    cycle_epochs: int = 25
    warmup_epochs: int = 10
    lr_decay: float = 0.5

    def __post_init__(self) -> None:
        if self.min_lr > self.max_lr:
            raise SasvError(f"--min-lr {self.min_lr:g} is above --max-lr {self.max_lr:g}; lower it")

    def __call__(self, epoch: int) -> float:
        """Return the learning rate of an epoch, counted from 0."""
        raise NotImplementedError

    def warmup(self, epoch: int) -> float:
        """Return the learning rate of an epoch of the warm-up at the start."""
        return self.min_lr + (self.max_lr - self.min_lr) * epoch / self.warmup_epochs


@dataclass(frozen=True, kw_only=True)
class CosineRestarts(Schedule):
    """In each cycle, the learning rate rises linearly from the lowest rate to the peak, and then
    decreases along a cosine to the lowest rate.

    The published Stage 1 uses the defaults. The published Stage 3 uses cycles of 8 epochs, peak
    1e-4, lowest rate 0, no warm-up, and decay 0.8.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup_epochs >= self.cycle_epochs:
            raise SasvError(
                f"--warmup-epochs {self.warmup_epochs} takes all of a cycle of {self.cycle_epochs} "
                "epochs, so that the peak is never reached; set fewer, or more --cycle-epochs"
            )

    def __call__(self, epoch: int) -> float:
        """Return the learning rate of an epoch, counted from 0."""
        cycle, step = divmod(epoch, self.cycle_epochs)
        peak = self.max_lr * self.lr_decay**cycle
        if step < self.warmup_epochs:
            return self.min_lr + (peak - self.min_lr) * step / self.warmup_epochs
        fall = (step - self.warmup_epochs) / (self.cycle_epochs - self.warmup_epochs)
        return self.min_lr + (peak - self.min_lr) * (1 + math.cos(math.pi * fall)) / 2


@dataclass(frozen=True, kw_only=True)
class StepDecay(Schedule):
    """After the warm-up, the learning rate is multiplied by the decay once per cycle, down to the
    lowest rate.
    """

    def __call__(self, epoch: int) -> float:
        """Return the learning rate of an epoch, counted from 0."""
        if epoch < self.warmup_epochs:
            return self.warmup(epoch)
        cycle = (epoch - self.warmup_epochs) // self.cycle_epochs
        return max(self.min_lr, self.max_lr * self.lr_decay**cycle)


@dataclass(frozen=True, kw_only=True)
class Exponential(Schedule):
    """After the warm-up, the learning rate decreases exponentially, by the decay per cycle, down to
    the lowest rate.
    """

    def __call__(self, epoch: int) -> float:
        """Return the learning rate of an epoch, counted from 0."""
        if epoch < self.warmup_epochs:
            return self.warmup(epoch)
        cycles = (epoch - self.warmup_epochs) / self.cycle_epochs
        return max(self.min_lr, self.max_lr * self.lr_decay**cycles)


@dataclass(frozen=True, kw_only=True)
class Cyclic(Schedule):
    """The learning rate follows triangles between the lowest rate and a peak that decreases with
    each cycle (Smith 2017), without warm-up.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup_epochs:
            raise SasvError(
                f"--schedule cyclic has no warm-up, but --warmup-epochs is {self.warmup_epochs}; "
                "set --warmup-epochs 0"
            )

    def __call__(self, epoch: int) -> float:
        """Return the learning rate of an epoch, counted from 0."""
        cycle, step = divmod(epoch, self.cycle_epochs)
        height = 1 - abs(2 * step / self.cycle_epochs - 1)
        return self.min_lr + (self.max_lr * self.lr_decay**cycle - self.min_lr) * height


@dataclass(frozen=True, kw_only=True)
class MarginWarmup:
    """Margin of the loss in each epoch, which increases in equal steps and then stays constant.

    Attributes:
        start: initial margin.
        end: final margin.
        epochs: number of epochs of the increase; the first of them is already one step above the
            initial margin.
    """

    start: float
    end: float
    epochs: int

    def __call__(self, epoch: int) -> float:
        """Return the margin of an epoch, counted from 0."""
        rise = min(1.0, (epoch + 1) / (self.epochs + 1))
        return self.start + (self.end - self.start) * rise


SCHEDULES: dict[str, type[Schedule]] = {
    "cosine": CosineRestarts,
    "step": StepDecay,
    "exponential": Exponential,
    "cyclic": Cyclic,
}


def make_schedule(options: ScheduleOptions) -> Schedule:
    """Return the schedule that the options describe.

    Raises:
        SasvError: the options contradict each other.
    """
    return SCHEDULES[options.schedule](
        max_lr=options.max_lr,
        min_lr=options.min_lr,
        cycle_epochs=options.cycle_epochs,
        warmup_epochs=options.warmup_epochs,
        lr_decay=options.lr_decay,
    )
