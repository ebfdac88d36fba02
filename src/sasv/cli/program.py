"""The program ``sasv``: finds the command, runs it, prints its result, and turns every error into
one line.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from sasv.commands import COMMANDS, function_name
from sasv.core.errors import MissingExtra, SasvError, Undecided, reason_of

DONE = 0
FAILED = 1
MISTAKE = 2
INTERRUPTED = 130
CLOSED_PIPE = 141
"""Exit statuses; the last two are those of a process that SIGINT or SIGPIPE ends."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``sasv`` and return its exit status.

    Returns:
        0 for success, 1 for an unexpected error, 2 for an error that is explained in one line, 130
        after an interruption, 141 if the reader of the output closed it.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None:
        _open_standard_streams()
    _print_undecodable_names()
    name = words[0] if words and words[0] in COMMANDS else ""
    try:
        status = _run(words)
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except BrokenPipeError:
        _discard_stdout()
        return CLOSED_PIPE
    except KeyboardInterrupt:
        return _fail(name, "interrupted" + _resumes(name), INTERRUPTED)
    except SasvError as error:
        return _fail(name, str(error), MISTAKE)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.EPIPE, errno.ESHUTDOWN):
            _discard_stdout()
            return CLOSED_PIPE
        if isinstance(error, ModuleNotFoundError) and error.name == "torch":
            return _fail(name, str(MissingExtra("PyTorch", "torch", "this command")), MISTAKE)
        hint = "" if debugging() else " (set SASV_DEBUG=1 to see where)"
        return _fail(name, reason_of(error) + hint, FAILED)


def _run(words: Sequence[str]) -> int:
    """Run the command that the arguments give."""
    if not words or words[0] in ("-h", "--help"):
        _write(overview())
        return DONE if words else MISTAKE
    if words[0] == "--version":
        from sasv.core.version import __version__

        _write(f"sasv {__version__}")
        return DONE
    name = words[0]
    if name not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise SasvError(f"unknown command '{name}'{hint} (sasv --help lists them)")
    from sasv.cli.messages import messages

    with messages():
        return _do(name, words[1:])


def _do(name: str, words: Sequence[str]) -> int:
    """Run a command. Its modules are imported here, so that listing the commands is fast."""
    import importlib

    from sasv.cli.present import PRESENTERS

    parsed = _parsed(name, words)
    if parsed is None:
        return DONE
    options, force = parsed
    presenter = PRESENTERS.get(name)
    if presenter is not None and presenter.before is not None:
        _write(presenter.before(options))
    module = importlib.import_module(f"sasv.commands.{COMMANDS[name].module}")
    command = getattr(module, function_name(name))
    try:
        with checked_outputs(name, options, force):
            result = command(options)
    except Undecided as undecided:
        if presenter is not None:
            _write(presenter.after(undecided.result, options))
        raise
    if presenter is not None:
        _write(presenter.after(result, options))
    return DONE


@contextlib.contextmanager
def checked_outputs(name: str, options: Any, force: bool = False) -> Iterator[None]:
    """Refuse outputs of a command that would overwrite other data, and mark its output folders.

    Raises:
        SasvError: see ``sasv.core.outputs.check_outputs``.
    """
    command = COMMANDS[name]
    if not command.outputs or getattr(options, "dry_run", False):
        yield
        return
    import dataclasses

    from sasv.core.outputs import Output, check_outputs, marked_outputs

    for field in dataclasses.fields(options):
        # An empty path, for instance from an unset variable of a script, would be the current
        # folder.
        if field.name in command.outputs and not getattr(options, field.name) and field.default:
            raise SasvError(f"--{field.name.replace('_', '-')} is empty; give a path")
    inputs = {option: _paths(getattr(options, option)) for option in command.inputs}
    speech = {option: getattr(options, option) for option in command.speech}
    outputs = [
        (Output(option, files), getattr(options, option))
        for option, files in command.outputs.items()
    ]
    check_outputs(name, inputs, speech, outputs, force)
    with marked_outputs([path for output, path in outputs if output.files and path], name):
        yield


def _paths(value: Any) -> list[str]:
    """Return the paths in the value of an option, with and without a name and a column
    (NAME=PATH:COLUMN).
    """
    if isinstance(value, dict):
        value = list(value.values())
    found = []
    for text in value if isinstance(value, list) else [value]:
        path = text.partition("=")[2]
        found += [text, path, path.rpartition(":")[0], text.rpartition(":")[0]]
    return [path for path in found if path]


def _parsed(name: str, words: Sequence[str]) -> tuple[Any, bool] | None:
    """Return the options of a command and whether to force it; None if its help was requested and
    printed.
    """
    import io

    from sasv.cli.parser import parse_all

    shown = io.StringIO()  # argparse would ignore an error while writing the help page
    try:
        with contextlib.redirect_stdout(shown):
            return parse_all(name, words)
    except SystemExit:
        _write(shown.getvalue().rstrip("\n"))
        return None


def overview() -> str:
    """Return the help page, made without importing any command."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: sasv COMMAND [options]",
            "",
            "Spoofing-aware speaker verification: one embedding that accepts the claimed speaker "
            "and rejects",
            "both other people and synthetic copies.",
            "",
            "commands:",
            *lines,
            "",
            "sasv COMMAND --help shows its options; every option can also be set in a YAML file "
            "(--config FILE).",
        ]
    )


def _write(text: str) -> None:
    """Print a result. Raise SasvError if it cannot be written to standard output."""
    if not text:
        return
    if sys.stdout is None:
        raise SasvError("standard output is closed; redirect it to a file or to /dev/null")
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        _discard_stdout()
        raise SasvError(f"cannot write to standard output: {reason_of(error)}") from error


def _fail(name: str, message: str, status: int) -> int:
    """Print one line on standard error, with a traceback where SASV_DEBUG asks for it; return the
    status.
    """
    from sasv.core.progress import write_line

    if debugging():
        import traceback

        traceback.print_exc()
    line = " ".join(message.split())
    lead = f"sasv {name}" if name else "sasv"
    write_line(f"{lead}: {line}")
    return status


def debugging() -> bool:
    """Whether SASV_DEBUG asks for tracebacks."""
    return os.environ.get("SASV_DEBUG", "") not in ("", "0")


def _resumes(name: str) -> str:
    if name and COMMANDS[name].resumable:
        return "; run the same command again to resume"
    return ""


def _print_undecodable_names() -> None:
    """Have names that the locale cannot show printed with escapes in place of an error."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            with contextlib.suppress(OSError, ValueError):
                stream.reconfigure(errors="backslashreplace")


def _open_standard_streams() -> None:
    """Keep descriptors 0 to 2 occupied, so that no file opened later is written to as standard
    output.
    """
    with contextlib.suppress(OSError):
        while True:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor > 2:
                os.close(descriptor)
                return


def _discard_stdout() -> None:
    """Send what is still buffered for standard output nowhere, so that the end of Python stays
    silent.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, sys.stdout.fileno())
        os.close(descriptor)
