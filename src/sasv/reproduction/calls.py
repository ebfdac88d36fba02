"""Commands as values. This room may not import the commands; they make the calls runnable."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Call:
    """A command with its options.

    Attributes:
        name: of the command.
        values: its options; others have the value of the recipe, or their default.
        recipe: name of a recipe, of ``train``.
        launched: whether many processes may do it together (``--launch``).
    """

    name: str
    values: Mapping[str, Any]
    recipe: str = ""
    launched: bool = False


@dataclass(frozen=True)
class Resolved:
    """A call that can be made.

    Attributes:
        command: what a person would type.
        run: makes it.
        options: all options of the command.
        defaults: their defaults.
        renamed: old name -> present name of options.
    """

    command: str
    run: Callable[[], Any]
    options: Mapping[str, Any]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)


Resolve = Callable[[Call], Resolved]
"""What the layer of commands gives."""
