"""Turns a command that is given as a value into something that can be run: a function, or a command
line for a launcher.
"""

import importlib
import shlex
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from sasv.commands import COMMANDS, function_name
from sasv.core.errors import SasvError
from sasv.core.options import defaults_of, renamed_options, values_of
from sasv.core.words import words_of
from sasv.reproduction.calls import Call, Resolved
from sasv.training.recipes import recipe_values

LAUNCHERS = ("torchrun", "srun", "mpirun")


def resolve(call: Call, launcher: str = "") -> Resolved:
    """Return a function that makes a call, in this process or with a launcher that starts many
    processes.

    Args:
        call: the command and its options.
        launcher: words before ``-m sasv``, for instance ``torchrun --nproc-per-node 4``.
    """
    command = COMMANDS[call.name]
    module = importlib.import_module(f"sasv.commands.{command.module}")
    kind = getattr(module, command.options)
    function = getattr(module, function_name(call.name))
    preset = recipe_values(call.recipe) if call.recipe else {}
    options = kind(**(preset | dict(call.values)))
    words = [
        call.name,
        *([call.recipe] if call.recipe else []),
        *words_of(options, command.positionals, preset),
    ]
    typed = ["sasv", *words]
    run: Callable[[], Any] = lambda: function(options)  # noqa: E731
    if call.launched and launcher:
        typed = [*shlex.split(launcher), "-m", "sasv", *words]
        run = lambda: launch(typed)  # noqa: E731
    return Resolved(
        shlex.join(typed), run, values_of(options), defaults_of(kind), renamed_options(kind)
    )


def check_launcher(launcher: str) -> None:
    """Raise SasvError if ``--launch`` does not begin with a known launcher."""
    if launcher and not shlex.split(launcher)[0].endswith(LAUNCHERS):
        raise SasvError(
            f"--launch '{launcher}': give the part of the command before -m sasv (torchrun "
            "--nproc-per-node 4)"
        )


def launch(command: list[str]) -> None:
    """Run a command that starts many processes. Raises SasvError if it fails."""
    if command[0] == "torchrun":
        command = [sys.executable, "-m", "torch.distributed.run", *command[1:]]
    if subprocess.run(command).returncode != 0:
        raise SasvError(
            f"the command failed for the reason given above: {shlex.join(command)}; run the same "
            "command again to resume"
        )
