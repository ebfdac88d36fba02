"""Learning rate by epoch, as a pure function: nothing to save, nothing to restore."""

import math


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
