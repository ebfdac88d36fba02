"""Read and write checkpoints. Nothing is ever unpickled: safetensors, or torch.load(weights_only=True)."""

import io
import os
import pickle
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from sasv.core.errors import CheckpointError, some
from sasv.core.files import write_bytes
from sasv.encoders import ENCODERS
from sasv.encoders.base import Encoder
from sasv.models.specification import Specification
from sasv.weights import resolve

ENCODER_PREFIX, HEAD_PREFIX = "encoder.", "head."
PUBLISHED_ENCODER, PUBLISHED_HEAD = "__S__.", "__L__."
PUBLISHED_SUFFIXES = (".model", ".pt", ".pth")
METADATA_KEY = "sasv"


@dataclass
class Checkpoint:
    """A model at rest: what it is, the entries of its encoder and of its loss head."""

    specification: Specification
    encoder: dict[str, Tensor]
    head: dict[str, Tensor] = field(default_factory=dict)
    name: str = "checkpoint"


def save_checkpoint(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically: ``.safetensors`` is our format, ``.model`` the published one."""
    if Path(path).suffix in PUBLISHED_SUFFIXES:
        entries = _joined(checkpoint, PUBLISHED_ENCODER, PUBLISHED_HEAD)
        write_bytes(path, torch_bytes(entries))
        return
    if Path(path).suffix != ".safetensors":
        raise CheckpointError(f"{path}: name a checkpoint .safetensors (ours) or .model (published)")
    entries = _joined(checkpoint, ENCODER_PREFIX, HEAD_PREFIX)
    write_bytes(path, save(entries, {METADATA_KEY: checkpoint.specification.to_json()}))


def torch_bytes(value: Any) -> bytes:
    """Return what torch.save would write. Its own writer does not survive a full disk with a clear error."""
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def _joined(checkpoint: Checkpoint, encoder: str, head: str) -> dict[str, Tensor]:
    entries = {encoder + name: value for name, value in checkpoint.encoder.items()}
    entries |= {head + name: value for name, value in checkpoint.head.items()}
    return {name: value.detach().cpu().contiguous().clone() for name, value in entries.items()}


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint of either format and check every entry of the encoder.

    Args:
        path: file, name of ``sasv models``, or hub id ``org/name`` (see weights.resolve; nothing is fetched).

    Raises:
        CheckpointError: the file is missing, truncated, a pickle with code in it, of another model, or has
            missing, unexpected or mis-shaped entries (all of them are listed).
    """
    name = str(resolve(path))
    with open(name, "rb") as stream:
        start = stream.read(16)
    if _is_safetensors(start, Path(name).stat().st_size):
        checkpoint = _load_own(name)
    elif start[:2] == b"PK" or start[:1] == b"\x80":
        checkpoint = _load_published(name)
    else:
        raise CheckpointError(f"{name}: not a checkpoint, or truncated; fetch or convert it again")
    expected = {key: tuple(value.shape) for key, value in spawn_encoder(checkpoint, fill=False).state_dict().items()}
    found = {key: tuple(value.shape) for key, value in checkpoint.encoder.items()}
    _check_entries(name, expected, found)
    return checkpoint


def _is_safetensors(start: bytes, size: int) -> bool:
    return len(start) >= 9 and start[8:9] == b"{" and 8 < struct.unpack("<Q", start[:8])[0] < max(size, 100_000_000)


def _load_own(name: str) -> Checkpoint:
    try:
        with safe_open(name, "pt") as file:
            metadata = file.metadata() or {}
            entries = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{name}: truncated or broken safetensors file ({error}); fetch it again") from error
    if METADATA_KEY not in metadata:
        raise CheckpointError(
            f"{name}: safetensors without a sasv specification, so of another program; "
            f"its entries begin with {some(sorted(entries), 3)}"
        )
    specification = Specification.from_json(metadata[METADATA_KEY], name)
    encoder, head = _split(name, entries, ENCODER_PREFIX, HEAD_PREFIX)
    return Checkpoint(specification, encoder, head, name)


def _load_published(name: str) -> Checkpoint:
    try:
        entries = torch.load(name, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{name}: refused: a pickle with more than weights in it (it could run code); ask for a plain state dict"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{name}: truncated or broken checkpoint ({reason}); fetch it again") from error
    if not isinstance(entries, dict) or not all(isinstance(value, Tensor) for value in entries.values()):
        raise CheckpointError(f"{name}: not a plain state dict of tensors; save model.state_dict() alone")
    entries = {key.removeprefix("module."): value for key, value in entries.items()}
    encoder, head = _split(name, entries, PUBLISHED_ENCODER, PUBLISHED_HEAD)
    family = next((family for family in ENCODERS if ENCODERS.get(family).recognises(encoder)), None)
    if family is None:
        raise CheckpointError(
            f"{name}: not of a known encoder ({', '.join(ENCODERS)}); its entries begin with {some(sorted(encoder), 3)}"
        )
    kind: type[Encoder] = ENCODERS.get(family)
    try:
        sizes = kind.sizes_of({key: tuple(value.shape) for key, value in encoder.items()})
    except (KeyError, IndexError) as error:
        raise CheckpointError(f"{name}: looks like {family}, but entry {error} is missing") from error
    classes = next((len(value) for key, value in head.items() if key in ("aamsoftmax.weight", "weight")), 0)
    specification = Specification(
        encoder=family,
        encoder_options=vars(sizes),
        min_samples=kind.min_samples,
        classes=[str(index) for index in range(classes)],
        spoof_index=classes - 1 if classes and "angleproto_sasv.w1" in head else None,
        loss=_published_loss(head),
        training={"converted_from": Path(name).name},
    )
    return Checkpoint(specification, encoder, head, name)


def _published_loss(head: dict[str, Tensor]) -> str:
    if "angleproto_sasv.w1" in head:
        return "sasv"
    if "aamsoftmax.weight" in head:
        return "aamsoftmaxproto"
    return "aamsoftmax" if "weight" in head else ""


def _split(name: str, entries: dict[str, Tensor], encoder: str, head: str) -> tuple[dict[str, Any], dict[str, Any]]:
    strangers = [key for key in entries if not key.startswith((encoder, head))]
    if strangers:
        raise CheckpointError(
            f"{name}: of another model: entries begin with neither {encoder} nor {head}: {some(strangers, 5)}"
        )
    return (
        {key.removeprefix(encoder): value for key, value in entries.items() if key.startswith(encoder)},
        {key.removeprefix(head): value for key, value in entries.items() if key.startswith(head)},
    )


def _check_entries(name: str, expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]]) -> None:
    faults = []
    missing = [key for key in expected if key not in found]
    unexpected = [key for key in found if key not in expected]
    shapes = [
        f"{key} {found[key]} instead of {expected[key]}"
        for key in expected
        if key in found and found[key] != expected[key]
    ]
    for kind, keys in (("missing", missing), ("unexpected", unexpected), ("mis-shaped", shapes)):
        if keys:
            faults.append(f"{kind}: {', '.join(keys)}")
    if faults:
        raise CheckpointError(f"{name}: entries do not fit the encoder: {'; '.join(faults)}")


def spawn_encoder(checkpoint: Checkpoint, fill: bool = True) -> Encoder:
    """Make the encoder of a checkpoint; without ``fill`` only its shapes, on the meta device."""
    specification = checkpoint.specification
    kind: type[Encoder] = ENCODERS.get(specification.encoder)
    sizes = kind.parse_sizes(specification.encoder_options)
    with torch.device("cpu" if fill else "meta"):
        encoder = kind(sizes)
    if fill:
        encoder.load_state_dict(checkpoint.encoder)
    return encoder


def restore_head(head: nn.Module, checkpoint: Checkpoint, classes: Sequence[str] = ()) -> list[str]:
    """Load the loss entries that fit and say which were kept, dropped or start anew, a line each.

    Where ``classes`` names those of the head, the entries that have a row for each class keep the rows of the classes
    that the checkpoint has too, by name; the other rows start anew.
    """
    wanted, known = head.state_dict(), checkpoint.specification.classes
    place = {name: row for row, name in enumerate(known)}
    shared = [(row, place[name]) for row, name in enumerate(classes) if name in place]
    rows, sources = torch.tensor(shared, dtype=torch.long).reshape(-1, 2).T
    notes = []
    fitting = {}
    for key, value in checkpoint.head.items():
        there = f"head {key} {tuple(value.shape)}"
        axis = _class_axis(wanted[key], value, len(classes), len(known)) if classes and key in wanted else None
        if key not in wanted:
            notes.append(f"dropped {there}: this loss has no such entry")
        elif axis is not None:
            fitting[key] = wanted[key].index_copy(axis, rows, value.index_select(axis, sources))
            notes.append(f"kept {len(shared)} of the {len(known)} classes of {there}; this training has {len(classes)}")
        elif wanted[key].shape == value.shape:
            fitting[key] = value
            notes.append(f"kept {there}")
        else:
            notes.append(f"dropped {there}: this training wants {tuple(wanted[key].shape)}")
    notes += [f"new head {key} {tuple(value.shape)}" for key, value in wanted.items() if key not in fitting]
    head.load_state_dict(fitting, strict=False)
    return notes


def _class_axis(new: Tensor, old: Tensor, classes: int, known: int) -> int | None:
    """Return the one axis along which both entries hold their classes; None where none or two would do."""
    shape = tuple(old.shape)
    found = [
        axis
        for axis, size in enumerate(shape)
        if size == known and tuple(new.shape) == (*shape[:axis], classes, *shape[axis + 1 :])
    ]
    return found[0] if len(found) == 1 else None
