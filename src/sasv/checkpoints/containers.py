"""Reads weight files without unpickling arbitrary objects: safetensors, or
torch.load(weights_only=True).
"""

import io
import pickle
import struct
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from sasv.checkpoints.archives import check_archive
from sasv.checkpoints.formats.base import Contents
from sasv.checkpoints.wrappers import unwrapped
from sasv.core.errors import CheckpointError
from sasv.core.outputs import ZIP_COMMENT

LARGEST_HEADER = 100_000_000
"""Maximum size of the header of a safetensors file in bytes (the limit of its library)."""


def read_contents(path: Path) -> Contents:
    """Read the entries of a weight file.

    Raises:
        CheckpointError: the file is not a weight file, is truncated, or is a pickle that contains
            more than weights.
    """
    try:
        with open(path, "rb") as stream:
            start = stream.read(16)
        size = path.stat().st_size
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror or error}); check its permissions"
        ) from error
    if _is_safetensors(start, size):
        return _read_safetensors(path)
    if start[:2] == b"PK" or start[:1] == b"\x80":
        return _read_torch(path)
    raise CheckpointError(f"{path}: not a checkpoint, or truncated; download or convert it again")


def _is_safetensors(start: bytes, size: int) -> bool:
    return (
        len(start) >= 9
        and start[8:9] == b"{"
        and 8 < struct.unpack("<Q", start[:8])[0] < max(size, LARGEST_HEADER)
    )


def _read_safetensors(path: Path) -> Contents:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            entries = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, ValueError, OSError) as error:
        raise CheckpointError(
            f"{path}: truncated or damaged safetensors file ({error}); download it again"
        ) from error
    if "sasv" not in metadata:
        entries = unwrapped(entries, path)[0]
    return Contents(path, entries, metadata)


def _read_torch(path: Path) -> Contents:
    check_archive(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: refused, because the pickle contains more than weights and could run code; "
            "use a plain state dict instead"
        ) from error
    except Exception as error:  # a damaged pickle may end in any of them
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError(
            f"{path}: truncated or damaged checkpoint ({reason}); download it again"
        ) from error
    entries, extras = unwrapped(found, path)
    for key, value in entries.items():
        if (
            value.layout != torch.strided
            or value.numel() * value.element_size() > value.untyped_storage().nbytes()
        ):
            raise CheckpointError(
                f"{path}: the entry {key} of shape {tuple(value.shape)} is larger than its data in "
                "the file; download it again"
            )
    return Contents(path, entries, extras=extras)


def torch_bytes(value: Any) -> bytes:
    """Return the bytes that torch.save writes, because its own file writer gives no clear error on
    a full disk.
    """
    stream = io.BytesIO()
    torch.save(value, stream)
    data = stream.getvalue()
    # The comment of the zip archive, the length of which is in the last two bytes, marks the file
    # as written by sasv.
    return data[:-2] + len(ZIP_COMMENT).to_bytes(2, "little") + ZIP_COMMENT
