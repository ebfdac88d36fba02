"""The command line: parses arguments into options, calls the command, and prints its result.

It is the only room that prints.
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
