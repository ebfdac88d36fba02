"""The position of a training run, and the rows of its log."""

import math
from dataclasses import dataclass, field
from typing import Any

from sasv.core.progress import duration


def zero_sums() -> dict[str, float]:
    """Return the sums at the beginning of an epoch."""
    return dict.fromkeys(
        ("loss", "accuracy", "batches", "pairs", "seconds", "waited", "skipped"), 0.0
    )


@dataclass
class Position:
    """The position of a training run.

    Attributes:
        epoch: number of completed epochs.
        batch: number of completed batches of the current epoch.
        sums: sums over these batches.
        best: best value of the development metric so far.
        best_epoch: its epoch, counted from 1; 0 if none was evaluated.
        evaluated: number of epochs for which the evaluation, if one was due, is done.
    """

    epoch: int = 0
    batch: int = 0
    sums: dict[str, float] = field(default_factory=zero_sums)
    best: float = math.inf
    best_epoch: int = 0
    evaluated: int = 0


def position_of(state: dict[str, Any]) -> Position:
    """Return the position in a saved state.

    Older versions saved only evaluated epochs and did not record that they were evaluated.
    """
    values = {"evaluated": state["epoch"]}
    for name in vars(Position()):
        if name in state:
            values[name] = state[name]
    return Position(**values)


def mean_values(sums: dict[str, float]) -> dict[str, float]:
    """Return the mean loss and accuracy over the batches in the sums, and the mean cosine of bona
    fide speech with the anchor if there is one.
    """
    batches = max(sums["batches"], 1)
    names = ("loss", "accuracy", "anchor_cosine")
    return {name: sums[name] / batches for name in names if name in sums}


def log_row(epoch: int, lr: float, sums: dict[str, float]) -> dict[str, Any]:
    """Return the row of the log for an epoch, counted from 1, from its learning rate and sums."""
    return {
        "epoch": epoch,
        **mean_values(sums),
        "lr": lr,
        "skipped": int(sums["skipped"]),
        "pairs_per_second": sums["pairs"] / max(sums["seconds"], 1e-9),
        "seconds": sums["seconds"],
        "waited_for_data": sums["waited"],
    }


def renamed_row(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of the log with the current column names; older versions wrote ``rate`` instead
    of ``lr``.
    """
    return {"lr" if name == "rate" else name: value for name, value in row.items()}


def describe(row: dict[str, Any], epochs: int) -> str:
    """Return the line that is logged after an epoch."""
    parts = [
        f"epoch {row['epoch']}/{epochs}",
        f"loss {row['loss']:.3f}",
        f"accuracy {row['accuracy']:.1f}%",
    ]
    if row.get("anchor_cosine") is not None:
        parts.append(f"bona fide at cosine {row['anchor_cosine']:.3f} to the anchor")
    parts += [
        f"dev {name.removesuffix('_eer').upper()}-EER {row[name]:.2f}%"
        for name in ("sasv_eer", "sv_eer", "spf_eer")
        if row.get(name) is not None
    ]
    return ", ".join([*parts, duration(row["seconds"])])
