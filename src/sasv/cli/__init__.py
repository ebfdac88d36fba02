"""The command line: words to options to a command, and its result to text. The only room that
prints.
"""

from typing import Any

from sasv.cli.program import main

__all__ = ["main", "parse"]


def __getattr__(name: str) -> Any:
    """Import the parser when it is first used: a list of commands does not need it."""
    if name != "parse":
        raise AttributeError(f"module 'sasv.cli' has no attribute '{name}'")
    from sasv.cli.parser import parse

    return parse
