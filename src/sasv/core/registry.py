"""Names to lazily imported classes or functions: one file and one line for each new member."""

import difflib
import importlib
from collections.abc import Iterator
from typing import Any

from sasv.core.errors import SasvError


class Registry:
    """Maps a name to ``module:attribute``; the module is imported when the member is first asked for."""

    def __init__(self, kind: str, members: dict[str, str]):
        self.kind = kind
        self.members = members

    def __iter__(self) -> Iterator[str]:
        return iter(self.members)

    def get(self, name: str) -> Any:
        """Return the member called ``name``; SasvError with the known names where there is none."""
        if name not in self.members:
            near = difflib.get_close_matches(name, self.members, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise SasvError(f"unknown {self.kind} '{name}'; {hint}known: {', '.join(self.members)}")
        module, _, attribute = self.members[name].partition(":")
        return getattr(importlib.import_module(module), attribute)
