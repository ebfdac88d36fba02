"""Registries that map names to lazily imported classes or functions; a new member is one file and
one line.

Packages of other people register members of their own without a change here, by an entry point of
the registry's group. In the ``pyproject.toml`` of such a package::

    [project.entry-points."sasv.encoders"]
    my-encoder = "my_package.my_module:MyEncoder"

They are looked for when a name is unknown here, or when all names are asked for; a name of ours
cannot be taken.
"""

import difflib
import importlib
import importlib.metadata
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, TypeVar

from sasv.core.errors import SasvError

T = TypeVar("T", bound=type)


class Registry:
    """Maps a name to ``module:attribute``; the module is imported when the member is first asked
    for.

    Args:
        kind: what the members are, for messages.
        members: name to ``module:attribute``.
        group: entry-point group in which other packages register members; empty if they cannot.
    """

    def __init__(self, kind: str, members: dict[str, str], group: str = ""):
        self.kind = kind
        self.members = members
        self.group = group

    @cached_property
    def others(self) -> dict[str, importlib.metadata.EntryPoint]:
        """Members that other packages register."""
        found = importlib.metadata.entry_points(group=self.group) if self.group else ()
        return {entry.name: entry for entry in found if entry.name not in self.members}

    def __iter__(self) -> Iterator[str]:
        yield from self.members
        yield from sorted(self.others)

    def __contains__(self, name: object) -> bool:
        return name in self.members or name in self.others

    def get(self, name: str) -> Any:
        """Return the member called ``name``.

        Raises:
            SasvError: there is none (the message says what there is), or the package of another
                that registers it cannot be imported.
        """
        if name in self.members:
            module, _, attribute = self.members[name].partition(":")
            return getattr(importlib.import_module(module), attribute)
        if name in self.others:
            return self._of_another(name)
        known = list(self)
        near = difflib.get_close_matches(str(name), known, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise SasvError(f"unknown {self.kind} '{name}'; {hint}known: {', '.join(known)}")

    def names(self) -> str:
        """Return the names of our members for a help text. Nothing is imported or looked for."""
        return ", ".join(self.members)

    def _of_another(self, name: str) -> Any:
        entry = self.others[name]
        package = entry.dist.name if entry.dist else entry.value
        try:
            return entry.load()
        except (ImportError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise SasvError(
                f"{self.kind} '{name}' of the package {package} cannot be imported: {reason}"
            ) from error


def listing(**registries: Registry) -> Callable[[T], T]:
    """Decorate a class so that ``{name}`` in its docstring becomes the names of a registry's
    members.

    Help texts are made from docstrings of options; none of them then lists names by hand.
    """

    def filled(kind: T) -> T:
        for name, registry in registries.items():
            assert kind.__doc__ and f"{{{name}}}" in kind.__doc__, (
                f"no {{{name}}} in the docstring of {kind}"
            )
            kind.__doc__ = kind.__doc__.replace(f"{{{name}}}", registry.names())
        return kind

    return filled
