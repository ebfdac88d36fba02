"""A command to interrupt: how to run it, prepare its folder, and check what is left."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sasv import commands
from sasv.cli.program import checked_outputs


def _nothing(out: Path) -> None:
    """Do nothing: most commands need no existing files, and no check before they have finished."""


@dataclass(frozen=True)
class Scenario:
    """A command that is interrupted. Each function takes the output folder of the trial.

    Attributes:
        name: name of the scenario.
        run: runs the command.
        share: relative frequency with which the scenario is drawn.
        begin: creates the files that the command changes.
        check: raises Fault if the interruption lost data that the user had or that the command
            had confirmed as stored.
    """

    name: str
    run: Callable[[Path], object]
    share: int
    begin: Callable[[Path], object] = _nothing
    check: Callable[[Path], object] = _nothing


def run_command(name: str, options_for: Callable[[Path], Any], out: Path) -> object:
    """Run a command in the same way as the command line."""
    options = options_for(out)
    with checked_outputs(name, options):
        return getattr(commands, name)(options)
