"""Transfers the loss head of a checkpoint to another training run."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sasv.checkpoints.checkpoint import Checkpoint


def restore_head(head: nn.Module, checkpoint: Checkpoint, classes: Sequence[str] = ()) -> list[str]:
    """Load those entries of a loss head that match.

    Args:
        head: the loss head.
        checkpoint: the checkpoint.
        classes: names of the classes of ``head``. If given, entries with a row for each class take
            over the rows of the classes that the checkpoint also has, by name. The other rows are
            initialised.

    Returns:
        One line for each entry that was kept, dropped, or initialised.
    """
    wanted = head.state_dict()
    known = checkpoint.specification.classes
    place = {name: row for row, name in enumerate(known)}
    shared = [(row, place[name]) for row, name in enumerate(classes) if name in place]
    rows, sources = torch.tensor(shared, dtype=torch.long).reshape(-1, 2).T
    notes = []
    fitting = {}
    for key, value in checkpoint.head.items():
        there = f"head {key} {tuple(value.shape)}"
        axis = (
            _class_axis(wanted[key], value, len(classes), len(known))
            if classes and key in wanted
            else None
        )
        if key not in wanted:
            notes.append(f"dropped {there}: this loss has no such entry")
        elif axis is not None:
            fitting[key] = wanted[key].index_copy(axis, rows, value.index_select(axis, sources))
            notes.append(
                f"kept {len(shared)} of the {len(known)} classes of {there}; this training has "
                f"{len(classes)}"
            )
        elif wanted[key].shape == value.shape:
            fitting[key] = value
            notes.append(f"kept {there}")
        else:
            notes.append(f"dropped {there}: this training needs {tuple(wanted[key].shape)}")
    notes += [
        f"new head {key} {tuple(value.shape)}"
        for key, value in wanted.items()
        if key not in fitting
    ]
    head.load_state_dict(fitting, strict=False)
    return notes


def _class_axis(new: Tensor, old: Tensor, classes: int, known: int) -> int | None:
    """Return the axis along which both entries have their classes; None if there is no such axis or
    more than one.
    """
    shape = tuple(old.shape)
    found = [
        axis
        for axis, size in enumerate(shape)
        if size == known and tuple(new.shape) == (*shape[:axis], classes, *shape[axis + 1 :])
    ]
    return found[0] if len(found) == 1 else None
