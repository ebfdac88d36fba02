"""Limits the size of a network to that of the checkpoint from which it is built."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.nn.modules import module

ALWAYS = 100
"""So many parameters are made in any case, that a checkpoint which lacks some entries is told
which.
"""
PARTS_PER_PARAMETER = 10
"""Modules without parameters (activations, containers) that a network may have beside each
parameter.
"""


class TooManyParts(Exception):
    """A network was about to have more parts than its checkpoint has entries for."""


@contextmanager
def at_most(entries: int) -> Iterator[None]:
    """Stop the making of modules in this thread once they have far more parameters than there are
    entries.

    The options of a checkpoint of a few kilobytes can ask for millions of layers: this is found out
    after about as many layers as the checkpoint has, whatever the encoder.

    Raises:
        TooManyParts: that was so.
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
