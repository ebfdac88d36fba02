"""Exceptions whose one-line messages tell the user what is wrong and what to do."""

import errno
import re
from collections.abc import Sequence
from typing import Any

CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Line ends, terminal control characters, and characters that change the writing direction."""

NO_MEMORY = ("can't allocate memory", "Cannot allocate memory", "out of memory")
"""Fragments of the messages of PyTorch, CUDA, and the system when memory runs out."""


class SasvError(Exception):
    """An error that the user can fix. The message is one line that names the file, the problem, and
    the remedy.

    The command line prints the message without a traceback and exits with status 2. Line ends in
    the message become spaces and control characters are escaped, because names that are quoted from
    files may contain them.
    """

    def __init__(self, message: str = ""):
        super().__init__(CONTROLS.sub(_shown, message))


class AudioError(SasvError):
    """An audio file cannot be used."""


class StorageError(SasvError):
    """Remote storage is unavailable at the moment, whichever file is requested.

    This is not an AudioError, because a job must stop and be resumed later instead of skipping a
    recording that exists.
    """


class TableError(SasvError):
    """A table (utterances, enrolments, trials, scores) is malformed."""


class CheckpointError(SasvError):
    """A checkpoint cannot be read or does not match the model."""


class Undecided(SasvError):
    """A verification ended without a verdict, because the recordings cannot be compared.

    Attributes:
        result: what is known nevertheless, as JSON values: the reasons, and the properties of the
            recordings.
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
    """Join up to ``most`` names for a message: ``a, b, c and 7 more``."""
    shown = ", ".join(str(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def reason_of(error: BaseException) -> str:
    """Describe an unexpected exception in one line: its type, its file, and the beginning of its
    message.
    """
    text = str(error)
    if isinstance(error, MemoryError) or any(words in text for words in NO_MEMORY):
        return "not enough memory; use smaller batches or fewer workers"
    if isinstance(error, RuntimeError) and "can't start new thread" in text:
        return (
            "no thread can be started: the memory or the process limit is exhausted; raise the "
            "limit (ulimit -v, ulimit -u), or use fewer workers"
        )
    if isinstance(error, OSError):
        reason = write_reason(error)
        return f"{error.filename}: {reason}" if error.filename is not None else reason
    words = " ".join(text.split())[:300]
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def write_reason(error: OSError) -> str:
    """Describe why a system call failed, with the remedy where there is an obvious one."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; free some space and run the same command again"
    if error.errno == errno.EFBIG:
        return "the file size limit is reached; raise it (ulimit -f) and run the same command again"
    if error.errno == errno.EMFILE:
        return "too many open files; raise the limit (ulimit -n)"
    if error.errno == errno.ENAMETOOLONG:
        return "the name is too long for this file system"
    return error.strerror or str(error) or type(error).__name__
