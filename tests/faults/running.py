"""Run trials in forked processes, with limits on time and memory, and count their outcomes.

An error in a trial is counted and never raised. PyTorch and the other libraries are imported once,
in the parent process. A child runs trials until one of them kills it; a new child then continues
with the trial after that one.
"""

import json
import os
import resource
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sasv.core.errors import MissingExtra, SasvError, Undecided

DONE = "done"
REFUSED = "refused in a line"
TRACEBACK = "traceback"
HANG = "hang"
CRASH = "crash"
MEMORY = "over 2 GB"
NOT_FINITE = "not finite"
LOST = "file of the user lost"
DIFFERENT = "resumed run differs"

FAULTS = (TRACEBACK, HANG, CRASH, MEMORY, NOT_FINITE, LOST, DIFFERENT)
"""Outcomes that must never happen. Every other outcome is either DONE or REFUSED."""

MOST_BYTES = 3 << 29
"""Resident memory that a trial may use beyond that of its process at the start: 1.5 GB. Together
with about 0.5 GB for PyTorch and the other libraries, this is the promised limit of 2 GB.
"""
ADDRESS_SPACE = 6 << 30
"""Address space that a child may use beyond that of its parent. The limit keeps a trial from using
up the memory of the machine.
"""


class Fault(Exception):
    """Raised by a trial that found an outcome that must never happen.

    Attributes:
        kind: one of FAULTS.
    """

    def __init__(self, kind: str, words: str):
        super().__init__(words)
        self.kind = kind


@dataclass
class Figures:
    """Outcomes of the trials of one part.

    Attributes:
        by_kind: maps the kind of damage or the command to the number of trials by outcome.
        faults: name, outcome, and message (``words``) of each failed trial.
        say: called at once with a message for each failed trial.
    """

    by_kind: dict[str, Counter[str]] = field(default_factory=dict)
    faults: list[dict[str, str]] = field(default_factory=list)
    say: Callable[[str], object] | None = None

    @property
    def outcomes(self) -> Counter[str]:
        """Number of trials by outcome."""
        return sum(self.by_kind.values(), Counter())

    @property
    def tried(self) -> int:
        """Number of trials."""
        return self.outcomes.total()

    @property
    def failed(self) -> int:
        """Number of trials whose outcome is one of FAULTS."""
        return len(self.faults)

    def add(self, name: str, kind: str, outcome: str, words: str) -> None:
        """Count one trial."""
        self.by_kind.setdefault(kind, Counter())[outcome] += 1
        if outcome in FAULTS:
            self.faults.append({"trial": name, "outcome": outcome, "words": words})
            if self.say is not None:
                self.say(f"  {name}: {outcome}: {words}")

    def to_dict(self) -> dict[str, Any]:
        """Return the counts and failed trials as values that JSON can represent."""
        return {
            "tried": self.tried,
            "failed": self.failed,
            "outcomes": self.outcomes,
            "by_kind": dict(sorted(self.by_kind.items())),
            "faults": self.faults,
        }


@dataclass(frozen=True)
class Trial:
    """One trial.

    Attributes:
        name: identifies the trial so that it can be repeated: target, kind, and number.
        kind: kind under which the trial is counted.
        work: function that is called in a child. Its return value is ignored. SasvError counts as
            a refusal, Fault carries the outcome, and any other exception counts as a traceback.
    """

    name: str
    kind: str
    work: Callable[[], object]


def run_trials(
    trials: Sequence[Trial], seconds: float = 20.0, say: Callable[[str], object] | None = None
) -> Figures:
    """Run trials one after another in forked child processes.

    Args:
        trials: trials to run.
        seconds: time limit of each trial in seconds.
        say: called at once with a message for each failed trial.
    """
    figures = Figures(say=say)
    first = 0
    while first < len(trials):
        first += _run_child(trials[first:], seconds, figures)
    return figures


def _run_child(trials: Sequence[Trial], seconds: float, figures: Figures) -> int:
    """Fork a child for the trials, count their outcomes, and return how many are finished."""
    before = private_bytes()
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            _be_child(trials, seconds, before, writer)
        finally:
            os._exit(0)
    os.close(writer)
    over = 0
    with open(reader, "rb") as stream:
        for trial, line in zip(trials, stream):
            report = json.loads(line)
            figures.add(trial.name, trial.kind, report["outcome"], report["words"])
            over += 1
    _, status, usage = os.wait4(child, 0)
    if over < len(trials) and status != 0:
        trial = trials[over]
        outcome, words = _death(status, usage.ru_maxrss * 1024 - before)
        figures.add(trial.name, trial.kind, outcome, words)
        over += 1
    return over


def private_bytes() -> int:
    """Return the resident memory, in bytes, that a child has from its start.

    Pages of files, such as libraries, are not included. They become resident when they are used.
    """
    _, resident, shared = _memory()
    return resident - shared


def _memory() -> tuple[int, int, int]:
    """Return the sizes of the address space, the resident part, and the shared part, in bytes.

    The sizes are 0 if the system does not report them.
    """
    try:
        with open("/proc/self/statm") as stream:
            size, resident, shared = map(int, stream.read().split()[:3])
    except OSError:
        return 0, 0, 0
    page = os.sysconf("SC_PAGE_SIZE")
    return size * page, resident * page, shared * page


def _death(status: int, taken: int) -> tuple[str, str]:
    """Return outcome and message for a child that ended during a trial.

    Args:
        status: wait status of the child.
        taken: largest number of bytes that the trial used.
    """
    if taken > MOST_BYTES:
        return MEMORY, f"{taken / 1e9:.1f} GB taken"
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
        return HANG, "not done in time"
    if os.WIFSIGNALED(status):
        return CRASH, f"signal {os.WTERMSIG(status)}"
    return CRASH, f"exit status {os.WEXITSTATUS(status)}"


def _be_child(trials: Sequence[Trial], seconds: float, before: int, writer: int) -> None:
    """Run trials and write a line of JSON to the pipe after each. Stop after a trial that uses too
    much memory.
    """
    silence()
    _bound_memory()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    for trial in trials:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        outcome, words = attempt(trial.work)
        signal.setitimer(signal.ITIMER_REAL, 0)
        taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
        too_much = taken > MOST_BYTES
        if too_much:
            outcome, words = MEMORY, f"{taken / 1e9:.1f} GB taken; {words}"
        os.write(writer, json.dumps({"outcome": outcome, "words": words[-600:]}).encode() + b"\n")
        if too_much:
            return


def silence() -> None:
    """Send everything that this process prints to the null device."""
    with open(os.devnull, "r+b") as null:
        for descriptor in (0, 1, 2):
            os.dup2(null.fileno(), descriptor)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (until the process ends)


def attempt(work: Callable[[], object]) -> tuple[str, str]:
    """Run the work of a trial in this process, and return its outcome and message."""
    try:
        work()
        return DONE, ""
    except Fault as fault:
        return fault.kind, str(fault)
    except MissingExtra as error:
        return TRACEBACK, f"the trial needs a package that is missing: {error}"
    except Undecided as undecided:
        try:
            json.dumps(undecided.result, allow_nan=False)
        except (TypeError, ValueError) as error:
            return NOT_FINITE, f"result of an undecided trial: {error}"
        return REFUSED, str(undecided)
    except SasvError as error:
        if "\n" in str(error) or not str(error).strip():
            return TRACEBACK, f"not one line: {str(error)!r}"
        return REFUSED, str(error)
    except MemoryError:
        return MEMORY, _where()
    except BaseException:
        return TRACEBACK, _where()


def _where() -> str:
    """Return the end of the traceback of the current exception."""
    return " | ".join(line.strip() for line in traceback.format_exc(limit=-3).splitlines()[1:])[
        -600:
    ]


def _bound_memory() -> None:
    """Limit the address space of this process to protect the machine."""
    used, _, _ = _memory()
    if used:
        resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESS_SPACE, used + ADDRESS_SPACE))
