"""What is interrupted: a command, as the command line runs it, with what it needs and leaves."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sasv import commands
from sasv.cli.program import checked_outputs


def _nothing(out: Path) -> None:
    """Most commands begin with an empty folder, and promise nothing before they are done."""


@dataclass(frozen=True)
class Scenario:
    """A command that is interrupted. Each function takes the output folder of the trial.

    Attributes:
        name: of the scenario.
        run: runs the command.
        share: how often it is drawn.
        begin: lays out what the command changes.
        check: raises Fault if an interruption lost what the user had, or was told was kept.
    """

    name: str
    run: Callable[[Path], object]
    share: int
    begin: Callable[[Path], object] = _nothing
    check: Callable[[Path], object] = _nothing


def run_command(name: str, options_for: Callable[[Path], Any], out: Path) -> object:
    """Run a command as the command line does."""
    options = options_for(out)
    with checked_outputs(name, options):
        return getattr(commands, name)(options)
