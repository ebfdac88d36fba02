"""Removes the wrappers that training code adds to a state dict, so that formats see only the keys
of the network.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from sasv.core.errors import CheckpointError, listed

NESTED = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "embedding_model",
)
"""Keys under which a training state contains its weights (Lightning: ``state_dict``), in the order
in which they are tried.
"""
ANYWHERE = "_orig_mod."
"""Prefix that ``torch.compile`` adds to the keys of a module, at any depth."""
LEADING = "module."
"""Prefix that ``DataParallel`` and ``DistributedDataParallel`` add to all keys."""
SHARED = ("model.", "net.", "network.", "backbone.", "embedding_model.")
"""Attributes of a training module that contain the network. The prefix is removed if all keys begin
with the same one.
"""


def unwrapped(found: Any, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the entries of a state dict without wrappers, and the other values in the file.

    Args:
        found: the content of a file: a state dict, or a dictionary that contains one.
        path: the file, for messages.

    Raises:
        CheckpointError: there is no state dict, or two entries would have the same name.
    """
    extras: dict[str, Any] = {}
    while not _is_state_dict(found):
        names = list(found) if isinstance(found, Mapping) else []
        inner = next(
            (key for key in NESTED if key in names and isinstance(found[key], Mapping)), None
        )
        if inner is None:
            held = f"; it contains {listed(sorted(map(str, names)))}" if names else ""
            raise CheckpointError(
                f"{path}: not a plain state dict of tensors{held}; save only model.state_dict()"
            )
        extras |= {str(key): value for key, value in found.items() if key != inner}
        found = found[inner]
    entries: dict[str, Tensor] = {}
    for key, value in found.items():
        name = _without_parallel(key.replace(ANYWHERE, ""))
        if name in entries:
            raise CheckpointError(
                f"{path}: two entries have the same name {name} after prefixes are removed"
            )
        entries[name] = value
    return _without_shared(entries), extras


def _is_state_dict(found: Any) -> bool:
    return isinstance(found, Mapping) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in found.items()
    )


def _without_parallel(name: str) -> str:
    while name.startswith(LEADING):
        name = name.removeprefix(LEADING)
    return name


def _without_shared(entries: dict[str, Tensor]) -> dict[str, Tensor]:
    shared = next(
        (prefix for prefix in SHARED if entries and all(key.startswith(prefix) for key in entries)),
        None,
    )
    if shared is None:
        return entries
    return _without_shared(
        {_without_parallel(key.removeprefix(shared)): value for key, value in entries.items()}
    )
