"""Commands as values. This package may not import the commands, which make the calls runnable."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Call:
    """A command with its options.

    Attributes:
        name: name of the command.
        values: its options; all others have the value of the recipe, or their default.
        recipe: name of a recipe, for ``train``.
        launched: whether several processes may run it together (``--launch``).
    """

    name: str
    values: Mapping[str, Any]
    recipe: str = ""
    launched: bool = False


@dataclass(frozen=True)
class Resolved:
    """A call that can be run.

    Attributes:
        command: the equivalent command line.
        run: runs the call.
        options: all options of the command.
        defaults: their defaults.
        renamed: old name -> current name of options.
    """

    command: str
    run: Callable[[], Any]
    options: Mapping[str, Any]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)


Resolve = Callable[[Call], Resolved]
"""Function that the commands provide to make a call runnable."""
