"""Registries that map names to lazily imported classes or functions. A new member needs one file
and one line.

Other packages register members of their own through an entry point in the group of the registry,
without a change to sasv. In the ``pyproject.toml`` of such a package::

    [project.entry-points."sasv.encoders"]
    my-encoder = "my_package.my_module:MyEncoder"

Entry points are searched only if a name is not one of sasv, or if all names are requested. They
cannot replace a member of sasv.
"""

import difflib
import importlib
import importlib.metadata
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any, TypeVar

from sasv.core.errors import SasvError

T = TypeVar("T", bound=type)


class Registry:
    """Maps names to ``module:attribute``. A module is imported when its member is first requested.

    Args:
        kind: what the members are ("encoder"), for messages.
        members: name -> ``module:attribute``.
        group: entry-point group in which other packages register members; empty to allow none.
    """

    def __init__(self, kind: str, members: dict[str, str], group: str = ""):
        self.kind = kind
        self.members = members
        self.group = group

    @cached_property
    def others(self) -> dict[str, importlib.metadata.EntryPoint]:
        """Entry points of other packages, by member name."""
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
            SasvError: there is no such member (the message lists the known names), or the package
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
        """Return the names of sasv's own members for a help text, without importing anything."""
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


def listing(**registries: Registry | Iterable[str]) -> Callable[[T], T]:
    """Decorate a class so that ``{name}`` in its docstring is replaced by the member names of a
    registry, or of another table.

    Help texts are made from the docstrings of options, so that no help text lists names by hand.
    """

    def filled(kind: T) -> T:
        for name, registry in registries.items():
            assert kind.__doc__ and f"{{{name}}}" in kind.__doc__, (
                f"no {{{name}}} in the docstring of {kind}"
            )
            ours = registry.names() if isinstance(registry, Registry) else ", ".join(registry)
            kind.__doc__ = kind.__doc__.replace(f"{{{name}}}", ours)
        return kind

    return filled
