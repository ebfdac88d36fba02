"""Learning rate by epoch, as pure functions: nothing to save, nothing to restore."""

import math
from collections.abc import Callable


def cosine_restarts(
    epoch: int, cycle: int = 25, highest: float = 1e-3, lowest: float = 1e-8, warmup: int = 10, decay: float = 0.5
) -> float:
    """Return the learning rate of an epoch, counted from 0.

    Each cycle climbs linearly from ``lowest`` for ``warmup`` epochs, then falls along a cosine to ``lowest``;
    the peak is multiplied by ``decay`` after each cycle (published Stage 1: the defaults; Stage 3: cycle 8,
    highest 1e-4, lowest 0, no warm-up, decay 0.8).
    """
    round_, step = divmod(epoch, cycle)
    peak = highest * decay**round_
    if step < warmup:
        return lowest + (peak - lowest) * step / warmup
    return lowest + (peak - lowest) * (1 + math.cos(math.pi * (step - warmup) / (cycle - warmup))) / 2


def warmed(epoch: int, highest: float, lowest: float, warmup: int) -> float | None:
    """Return the rate of a linear warm-up over the first epochs, None when it is over."""
    return lowest + (highest - lowest) * epoch / warmup if epoch < warmup else None


def step_decay(epoch: int, cycle: int, highest: float, lowest: float, warmup: int, decay: float) -> float:
    """Multiply by ``decay`` every ``cycle`` epochs after the warm-up, down to ``lowest``."""
    start = warmed(epoch, highest, lowest, warmup)
    return max(lowest, highest * decay ** ((epoch - warmup) // cycle)) if start is None else start


def exponential(epoch: int, cycle: int, highest: float, lowest: float, warmup: int, decay: float) -> float:
    """Fall smoothly by ``decay`` per ``cycle`` epochs after the warm-up, down to ``lowest``."""
    start = warmed(epoch, highest, lowest, warmup)
    return max(lowest, highest * decay ** ((epoch - warmup) / cycle)) if start is None else start


def cyclic(epoch: int, cycle: int, highest: float, lowest: float, warmup: int, decay: float) -> float:
    """Triangles between ``lowest`` and a peak that shrinks by ``decay`` each cycle (Smith 2017); no warm-up."""
    round_, step = divmod(epoch, cycle)
    height = 1 - abs(2 * step / cycle - 1)
    return lowest + (highest * decay**round_ - lowest) * height


SCHEDULES: dict[str, Callable[[int, int, float, float, int, float], float]] = {
    "cosine": cosine_restarts,
    "step": step_decay,
    "exponential": exponential,
    "cyclic": cyclic,
}
