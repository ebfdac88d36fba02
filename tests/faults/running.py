"""Trials in forked processes: each is bounded in time and memory, and whatever it does is counted,
not raised.

Torch and the other libraries are imported once, in the parent. A child works through as many trials
as it survives; where one kills it, the next child goes on behind that trial.
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
"""What must never happen; everything else is one of DONE and REFUSED."""

MOST_BYTES = 3 << 29
"""Resident memory that a trial may take beyond what its process starts with: 1.5 GB, which together
with the half GB of torch and the other libraries makes the 2 GB that are promised.
"""
ADDRESS_SPACE = 6 << 30
"""More than this beyond what the parent has is denied to a child, so that a trial cannot bring the
machine down.
"""


class Fault(Exception):
    """A trial found something that must never happen.

    Attributes:
        kind: one of FAULTS.
    """

    def __init__(self, kind: str, words: str):
        super().__init__(words)
        self.kind = kind


@dataclass
class Figures:
    """What came out of the trials of one kind.

    Attributes:
        by_kind: kind of damage or command -> outcome -> number of trials.
        faults: name, outcome and words of each trial that went wrong.
        say: told at once of each of these.
    """

    by_kind: dict[str, Counter[str]] = field(default_factory=dict)
    faults: list[dict[str, str]] = field(default_factory=list)
    say: Callable[[str], object] | None = None

    @property
    def outcomes(self) -> Counter[str]:
        """Outcome -> number of trials."""
        return sum(self.by_kind.values(), Counter())

    @property
    def tried(self) -> int:
        """Number of trials."""
        return self.outcomes.total()

    @property
    def failed(self) -> int:
        """Number of trials in which something happened that must never happen."""
        return len(self.faults)

    def add(self, name: str, kind: str, outcome: str, words: str) -> None:
        """Count one trial."""
        self.by_kind.setdefault(kind, Counter())[outcome] += 1
        if outcome in FAULTS:
            self.faults.append({"trial": name, "outcome": outcome, "words": words})
            if self.say is not None:
                self.say(f"  {name}: {outcome}: {words}")

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {
            "tried": self.tried,
            "failed": self.failed,
            "outcomes": self.outcomes,
            "by_kind": dict(sorted(self.by_kind.items())),
            "faults": self.faults,
        }


@dataclass(frozen=True)
class Trial:
    """Something to try.

    Attributes:
        name: says how to repeat it: target, kind, number.
        kind: under which it is counted.
        work: does it in a child; its return is ignored. SasvError is a refusal, Fault names what
            went wrong, and any other exception is a traceback.
    """

    name: str
    kind: str
    work: Callable[[], object]


def run_trials(
    trials: Sequence[Trial], seconds: float = 20.0, say: Callable[[str], object] | None = None
) -> Figures:
    """Run trials one after the other in forked children.

    Args:
        trials: what to try.
        seconds: the longest time of a trial.
        say: told at once of each trial that goes wrong.
    """
    figures = Figures(say=say)
    first = 0
    while first < len(trials):
        first += _run_child(trials[first:], seconds, figures)
    return figures


def _run_child(trials: Sequence[Trial], seconds: float, figures: Figures) -> int:
    """Fork a child for the trials; count what it did, and return how many trials are over."""
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
    """Return the memory of this process that a child has from its beginning, in bytes: the pages of
    files, such as libraries, come when they are touched.
    """
    _, resident, shared = _memory()
    return resident - shared


def _memory() -> tuple[int, int, int]:
    """Return the address space of this process, what is resident of it, and what of that other
    processes share, in bytes; zeros where the system does not say.
    """
    try:
        with open("/proc/self/statm") as stream:
            size, resident, shared = map(int, stream.read().split()[:3])
    except OSError:
        return 0, 0, 0
    page = os.sysconf("SC_PAGE_SIZE")
    return size * page, resident * page, shared * page


def _death(status: int, taken: int) -> tuple[str, str]:
    """Return outcome and words for a child that ended within a trial, having taken so many bytes
    at most.
    """
    if taken > MOST_BYTES:
        return MEMORY, f"{taken / 1e9:.1f} GB taken"
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
        return HANG, "not done in time"
    if os.WIFSIGNALED(status):
        return CRASH, f"signal {os.WTERMSIG(status)}"
    return CRASH, f"exit status {os.WEXITSTATUS(status)}"


def _be_child(trials: Sequence[Trial], seconds: float, before: int, writer: int) -> None:
    """Work through trials, a line of JSON into the pipe after each, until one takes too much
    memory.
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
    """Let nothing that this process prints be seen."""
    with open(os.devnull, "r+b") as null:
        for descriptor in (0, 1, 2):
            os.dup2(null.fileno(), descriptor)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (until the process ends)


def attempt(work: Callable[[], object]) -> tuple[str, str]:
    """Do the work of a trial in this process; return its outcome and what to say of it."""
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
    """Return the last words of the traceback of the present exception."""
    return " | ".join(line.strip() for line in traceback.format_exc(limit=-3).splitlines()[1:])[
        -600:
    ]


def _bound_memory() -> None:
    """Deny this process what would bring the machine down."""
    used, _, _ = _memory()
    if used:
        resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESS_SPACE, used + ADDRESS_SPACE))
