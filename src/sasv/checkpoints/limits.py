"""Limits the size of a network to that of the checkpoint from which it is made."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.nn.modules import module

ALWAYS = 100
"""This number of parameters is always allowed, so that the missing entries of a damaged checkpoint
can be listed.
"""
PARTS_PER_PARAMETER = 10
"""Maximum number of modules without parameters (activations, containers) per parameter."""


class TooManyParts(Exception):
    """A network would have more parts than its checkpoint has entries."""


@contextmanager
def at_most(entries: int) -> Iterator[None]:
    """Abort the construction of modules in this thread when they have far more parameters than
    ``entries``.

    The options in a checkpoint of a few kilobytes can request millions of layers. With any encoder,
    this is detected after about as many layers as the checkpoint has.

    Raises:
        TooManyParts: the limit was exceeded.
    """
    thread = threading.get_ident()
    made = {"parameters": 0, "parts": 0}
    most = ALWAYS + 2 * entries
    limits = {"parameters": most, "parts": PARTS_PER_PARAMETER * most}

    def count(kind: str, value: Any) -> None:
        if value is None or threading.get_ident() != thread:
            return
        made[kind] += 1
        if made[kind] > limits[kind]:
            raise TooManyParts(f"its options describe a larger network than its {entries} entries")

    handles = [
        module.register_module_parameter_registration_hook(
            lambda _, __, value: count("parameters", value)
        ),
        module.register_module_module_registration_hook(lambda _, __, value: count("parts", value)),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
