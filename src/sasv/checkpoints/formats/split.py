"""Separates the entries of encoder and loss head by their prefixes."""

from torch import Tensor

from sasv.checkpoints.checkpoint import Checkpoint
from sasv.core.errors import CheckpointError, listed

Entries = dict[str, Tensor]


def split(name: str, entries: Entries, encoder: str, head: str) -> tuple[Entries, Entries]:
    """Return the entries of the encoder and of the head, without their prefixes.

    Args:
        name: the file, for messages.
        entries: name -> tensor.
        encoder: prefix of the entries of the encoder.
        head: prefix of the entries of the head.

    Raises:
        CheckpointError: there are entries with other prefixes; the message lists them.
    """
    strangers = [key for key in entries if not key.startswith((encoder, head))]
    if strangers:
        raise CheckpointError(
            f"{name}: belongs to another model, because some entries begin with neither {encoder} "
            f"nor {head}: {listed(strangers, 5)}"
        )
    return (
        {
            key.removeprefix(encoder): value
            for key, value in entries.items()
            if key.startswith(encoder)
        },
        {key.removeprefix(head): value for key, value in entries.items() if key.startswith(head)},
    )


def joined(checkpoint: Checkpoint, encoder: str, head: str) -> Entries:
    """Return the entries of a checkpoint with their prefixes, as contiguous tensors on the CPU."""
    entries = {encoder + name: value for name, value in checkpoint.encoder.items()}
    entries |= {head + name: value for name, value in checkpoint.head.items()}
    return {name: value.detach().cpu().contiguous().clone() for name, value in entries.items()}
