"""Errors that a user can act on."""

from collections.abc import Sequence


class SasvError(Exception):
    """Something a user can mend: names the file, says what is wrong and what to do, in one line.

    The command line prints it without a traceback and exits with status 2.
    """


class AudioError(SasvError):
    """An audio file cannot be used."""


class TableError(SasvError):
    """A table (utterances, enrolments, trials, scores) is malformed."""


class CheckpointError(SasvError):
    """A checkpoint cannot be read or does not fit."""


class MissingExtra(SasvError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str, purpose: str):
        super().__init__(f'{purpose} needs {package}, which is not installed; pip install "sasv[{extra}]"')


def some(names: Sequence[object], most: int = 5) -> str:
    """Join the first names for a message: ``a, b, c and 7 more``."""
    shown = ", ".join(str(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
