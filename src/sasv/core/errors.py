"""Errors that a user can act on."""

import errno
import re
from collections.abc import Sequence
from typing import Any

CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Characters that end a line, steer a terminal, or turn the direction of writing."""

NO_MEMORY = ("can't allocate memory", "Cannot allocate memory", "out of memory")
"""What PyTorch, CUDA and the system say where memory is short."""


class SasvError(Exception):
    """Something a user can mend: names the file, says what is wrong and what to do, in one line.

    The command line prints it without a traceback and exits with status 2. Line ends and control
    characters in the message, which come from names in files, become spaces and escapes.
    """

    def __init__(self, message: str = ""):
        super().__init__(CONTROLS.sub(_shown, message))


class AudioError(SasvError):
    """An audio file cannot be used."""


class StorageError(SasvError):
    """Bytes that are not on this machine cannot be had at the moment, whoever asks for them.

    It is no AudioError: work ends here and goes on later, instead of leaving out what is there.
    """


class TableError(SasvError):
    """A table (utterances, enrolments, trials, scores) is malformed."""


class CheckpointError(SasvError):
    """A checkpoint cannot be read or does not fit."""


class Undecided(SasvError):
    """A verification ended without a verdict, because what it was given cannot be compared.

    Attributes:
        result: what is known all the same, as plain values: reasons and facts of the recordings.
    """

    def __init__(self, message: str, result: dict[str, Any]):
        super().__init__(message)
        self.result = result


class MissingExtra(SasvError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str, purpose: str):
        super().__init__(
            f'{purpose} needs {package}, which is not installed; pip install "sasv[{extra}]"'
        )


def _shown(control: re.Match[str]) -> str:
    return " " if control[0].isspace() else control[0].encode("unicode_escape").decode()


def listed(names: Sequence[object], most: int = 5) -> str:
    """Join the first names for a message: ``a, b, c and 7 more``."""
    shown = ", ".join(str(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def reason_of(error: BaseException) -> str:
    """Say in one line what an error is, for errors that no one foresaw: its kind, its file, its
    first words.
    """
    text = str(error)
    if isinstance(error, MemoryError) or any(words in text for words in NO_MEMORY):
        return "not enough memory; use smaller batches or fewer workers"
    if isinstance(error, RuntimeError) and "can't start new thread" in text:
        return (
            "no thread can be started: the memory or the limit of processes is used up; raise the "
            "limit (ulimit -v, ulimit -u), or use fewer workers"
        )
    if isinstance(error, OSError):
        reason = write_reason(error)
        return f"{error.filename}: {reason}" if error.filename is not None else reason
    words = " ".join(text.split())[:300]
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def write_reason(error: OSError) -> str:
    """Say in words why a system call failed, with what to do where that is clear."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; free some space and run the same command again"
    if error.errno == errno.EFBIG:
        return "the file size limit is reached; raise it (ulimit -f) and run the same command again"
    if error.errno == errno.EMFILE:
        return "too many open files; raise the limit (ulimit -n)"
    if error.errno == errno.ENAMETOOLONG:
        return "the name is too long for this file system"
    return error.strerror or str(error) or type(error).__name__
