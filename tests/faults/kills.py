"""Commands that are killed, or run out of disk, at their k-th change of the file system, and are
run again.

The second run has to end with the very files of an uninterrupted run, byte for byte, and every file
of the user has to be there still, unchanged. Changes are seen by an audit hook (files opened for
writing, renamed, removed; folders made and removed), by the writes of open files, one of which
may be cut in half, and by the statements that change an SQLite file.
"""

import builtins
import errno
import io
import json
import os
import re
import shutil
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from faults.running import (
    CRASH,
    DIFFERENT,
    DONE,
    HANG,
    LOST,
    REFUSED,
    Fault,
    Trial,
    attempt,
    silence,
)
from faults.scenario import Scenario
from faults.scenarios import known_scenarios, make_stock
from faults.stores import LATER, MADE_KEY, STORE, settled_store
from sasv.core.files import digest_of_bytes
from sasv.encoders import ENCODERS

KILL = "killed"
FULL = "disk full"
SECONDS = 1800.0
"""Longest run of one command."""

EVENTS = {
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.truncate",
    "os.link",
    "os.symlink",
    "shutil.rmtree",
}
STATEMENTS = ("INSERT", "UPDATE", "DELETE", "CREATE", "COMMIT")
"""First words of statements that change an SQLite file."""
TEMPORARY = re.compile(r"^\..*\.part(\.|$)")

VOLATILE_FILES = {".lock", "made.jsonl"}
"""Locks, and the log of synthesize, which names a copy that was begun twice."""
KEY_TEXT = re.compile(rb"[A-Za-z0-9+/]{43}=\n")
DATED = re.compile(r"[0-9a-f]{32}\.npz")
"""Parts of a stress test are named after their recordings, and copies have the date of the run."""
VOLATILE_COLUMNS = {"pairs_per_second", "seconds", "waited_for_data"}
"""Columns of the log of a training, and keys of its state, that hold times."""


class Trap:
    """Counts changes below a folder and strikes at one of them.

    Args:
        folder: changes elsewhere do not count.
        at: number of the change to strike at, from 1; 0 only counts.
        how: KILL or FULL.
    """

    def __init__(self, folder: Path, at: int, how: str):
        self.folder = os.fspath(folder) + os.sep
        self.at = at
        self.how = how
        self.seen = 0
        self.full = False
        self.open = builtins.open
        self.connect = sqlite3.connect

    def set(self) -> None:
        """Watch this process from now on. There is no way back."""
        sys.addaudithook(self._audit)
        builtins.open = io.open = self._opened  # type: ignore[assignment]
        sqlite3.connect = self._connected  # type: ignore[assignment]

    def _below(self, path: Any) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return False
        return os.path.abspath(os.fsdecode(path)).startswith(self.folder)

    def _audit(self, event: str, values: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = values
            if not isinstance(flags, int) or not self._below(path):
                return
            writes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
            if writes or TEMPORARY.match(Path(os.fsdecode(path)).name):
                self._change(grows=writes)
        elif event in EVENTS and any(self._below(value) for value in values[:2]):
            self._change(grows=event == "os.mkdir")

    def _change(self, grows: bool, half: Callable[[], object] | None = None) -> None:
        """Count a change that is about to happen; strike where it is the one."""
        self.seen += 1
        struck = self.seen == self.at
        if struck and half is not None:
            half()
        if struck and self.how == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        if (struck or self.full) and self.how == FULL and grows:
            self.full = True
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if struck:
            self.at += (
                1  # with a full disk files are still renamed and removed: the next that grows
            )

    def _opened(self, file: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
        stream = self.open(file, mode, *rest, **named)
        if isinstance(file, int) or not set(mode) & set("wax+") or not self._below(file):
            return stream
        write = stream.write

        def watched(data: Any) -> Any:
            def half() -> None:
                if self.how == KILL or not self.full:
                    write(data[: len(data) // 2])
                    stream.flush()

            self._change(grows=True, half=half)
            return write(data)

        stream.write = watched
        return stream

    def _connected(self, database: Any, *rest: Any, **named: Any) -> sqlite3.Connection:
        trap = self

        class Watched(sqlite3.Connection):
            def execute(self, query: str, *values: Any) -> sqlite3.Cursor:
                changes = query.lstrip().startswith(STATEMENTS)
                if changes:
                    trap._change_of_database(grows=True)
                found = super().execute(query, *values)
                if changes and not self.in_transaction:  # it is on the disk now, and not yet said
                    trap._change_of_database(grows=False)
                return found

        if self._below(database):
            named["factory"] = Watched
        return self.connect(database, *rest, **named)

    def _change_of_database(self, grows: bool) -> None:
        try:
            self._change(grows)
        except OSError as error:
            raise sqlite3.OperationalError("database or disk is full") from error


@dataclass
class Stage:
    """The folder in which commands are interrupted. Every trial begins with the same files at the
    same paths.

    Attributes:
        folder: holds ``stock`` (the files that every trial begins with) and ``work`` (those of the
            trial).
        names: of the commands that are interrupted; empty for all.
    """

    folder: Path
    names: Sequence[str] = ()

    @cached_property
    def stock(self) -> Path:
        """What commands take: made once."""
        return make_stock(self.folder / "stock", self.names)

    @property
    def work(self) -> Path:
        """Folder of a trial."""
        return self.folder / "work"

    def begin(self, scenario: Scenario) -> None:
        """Lay out the folder of a trial, with files of the user in it and beside it."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        for path, text in USER_FILES.items():
            (self.work / path).parent.mkdir(parents=True, exist_ok=True)
            (self.work / path).write_text(text)
        scenario.begin(self.work / "out")

    @cached_property
    def expected(self) -> dict[str, tuple[dict[str, bytes], int]]:
        """Scenario -> files of an uninterrupted run, and how many changes it makes."""
        found = {}
        for scenario in self.scenarios:
            self.begin(scenario)
            counted = self.folder / "changes"
            outcome, words = self.run(scenario, counted=counted)
            if outcome != DONE:
                raise AssertionError(f"{scenario.name} fails without any fault: {words}")
            found[scenario.name] = (contents(self.work), int(counted.read_text()))
        return found

    @cached_property
    def scenarios(self) -> list[Scenario]:
        """The commands that are interrupted."""
        known = known_scenarios(self.stock)
        return [scenario for scenario in known if not self.names or scenario.name in self.names]

    def run(
        self, scenario: Scenario, at: int = 0, how: str = KILL, counted: Path | None = None
    ) -> tuple[str, str]:
        """Run a command in a child of its own, struck at its change ``at``; return outcome and
        words.
        """
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(reader)
                silence()
                signal.setitimer(signal.ITIMER_REAL, SECONDS)
                out = self.work / "out"
                trap = Trap(self.work, at, how)
                trap.set()
                result = attempt(partial(scenario.run, out))
                if counted is not None:
                    counted.write_text(str(trap.seen))
                os.write(writer, json.dumps(result).encode())
            finally:
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as stream:
            answer = stream.read()
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            ended = os.WTERMSIG(status)
            if ended == signal.SIGKILL and at and how == KILL:
                return KILL, ""
            return (HANG if ended == signal.SIGALRM else CRASH), f"signal {ended}"
        outcome, words = json.loads(answer)
        return outcome, words


USER_FILES = {
    "notes.txt": "beside the output\n",
    "out/my notes.txt": "in the output\n",
    "out/mine/mine.txt": "in a folder of the output\n",
    "out/.hidden.part": "hidden\n",
}
"""Files of the user in and beside the output folder of each command."""


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder by its relative path, times of the work left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.name == STORE:
            found[name] = settled_store(path)
        elif DATED.fullmatch(path.name):
            data = path.read_bytes()
            found[str(Path(name).with_name(digest_of_bytes(data)))] = data
        elif path.is_file() and path.name not in VOLATILE_FILES and not name.endswith(LATER):
            found[name] = _settled(path.name, path.read_bytes())
    return found


def _settled(name: str, data: bytes) -> bytes:
    """Return the bytes of a file without what says how long the work took and how often it
    began.
    """
    if name == "metrics.csv":
        rows = [line.split(",") for line in data.decode().splitlines()]
        kept = [at for at, column in enumerate(rows[0]) if column not in VOLATILE_COLUMNS]
        return "\n".join(",".join(row[at] for at in kept) for row in rows).encode()
    if name == "index.tsv":  # a recording that was made anew has another date
        rows = [line.split("\t") for line in data.decode().splitlines()]
        return "\n".join("\t".join(row[:2]) for row in rows).encode()
    if name == MADE_KEY:  # of 32 random bytes
        return b"a key" if KEY_TEXT.fullmatch(data) else data
    if name == "embeddings.json":
        return re.sub(rb'"signature": "\w+"', b"", data)
    if name == "state.pt":
        return _plain(torch.load(io.BytesIO(data), weights_only=True)).encode()
    return data


def _plain(value: Any) -> str:
    """Return the values of a training state as text, without the times."""
    if isinstance(value, torch.Tensor):
        return f"{value.dtype} {tuple(value.shape)} {digest_of_bytes(value.numpy().tobytes())}"
    if isinstance(value, dict):
        return str(
            {key: _plain(part) for key, part in value.items() if key not in VOLATILE_COLUMNS}
        )
    if isinstance(value, list | tuple):
        return str([_plain(part) for part in value])
    return repr(value)


def try_interruption(stage: Stage, scenario: Scenario, how: str, draw: int) -> None:
    """Interrupt a command, run it again, and compare; Fault says what went wrong."""
    expected, changes = stage.expected[scenario.name]
    at = 1 + draw % changes
    stage.begin(scenario)
    outcome, words = stage.run(scenario, at, how)
    where = f"{how} at change {at} of {changes}"
    if outcome not in (KILL, REFUSED, DONE):
        raise Fault(outcome, f"{where}: {words}")
    _check_user_files(stage.work, where)
    try:
        scenario.check(stage.work / "out")
    except Fault as fault:
        raise Fault(fault.kind, f"{where}: {fault}") from fault
    outcome, words = stage.run(scenario)
    if outcome != DONE:
        kind = DIFFERENT if outcome == REFUSED else outcome
        raise Fault(kind, f"{where}; the second run: {words}")
    _check_user_files(stage.work, where)
    found = contents(stage.work)
    different = [name for name in expected if found.get(name) != expected[name]]
    more = [name for name in found if name not in expected]
    if different or more:
        raise Fault(
            DIFFERENT, f"{where}: differ or are missing: {different[:4]}; remain: {more[:4]}"
        )


def _check_user_files(work: Path, where: str) -> None:
    for name, text in USER_FILES.items():
        path = work / name
        if not path.is_file() or path.read_text() != text:
            raise Fault(LOST, f"{where}: {name}")


def kill_trials(count: int, seed: int, stage: Stage, how: str = KILL) -> Iterator[Trial]:
    """Yield interruptions of all commands."""
    drawn = [scenario for scenario in stage.scenarios for _ in range(scenario.share)]
    for number in range(count):
        rng = np.random.default_rng([seed, 4 if how == KILL else 5, number])
        scenario = drawn[int(rng.integers(len(drawn)))]
        work = partial(try_interruption, stage, scenario, how, int(rng.integers(1 << 30)))
        yield Trial(f"{how} {number}: {scenario.name}", f"{scenario.name}, {how}", work)


def prepare(stage: Stage) -> None:
    """Make what the trials begin with, and run every command once."""
    tqdm.monitor_interval = 0  # no thread of its own, which a fork would lose
    tqdm.set_lock(
        threading.RLock()
    )  # not one between processes, which a killed one would hold for ever
    for name in ENCODERS:
        presets = ENCODERS.get(name).presets
        if "test" in presets:
            presets["tiny"] = presets["test"]
    _ = stage.expected
