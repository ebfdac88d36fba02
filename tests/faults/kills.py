"""Interrupt commands at their k-th change of the file system, and run them again.

A command is either killed or finds the disk full. The second run must leave the same files, byte
for byte, as an uninterrupted run, and every file of the user must still exist unchanged. Three
means detect changes: an audit hook (files opened for writing, renamed, and removed; folders made
and removed), wrappers around the writes of open files, one of which may be cut in half, and a
wrapper around the statements that change an SQLite file.
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
"""Time limit of one run of a command in seconds."""

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
"""First words of the SQL statements that change an SQLite file."""
TEMPORARY = re.compile(r"^\..*\.part(\.|$)")

VOLATILE_FILES = {".lock", "made.jsonl"}
"""Lock files, and the log of synthesize, which lists a copy twice if it was begun twice."""
KEY_TEXT = re.compile(rb"[A-Za-z0-9+/]{43}=\n")
DATED = re.compile(r"[0-9a-f]{32}\.npz")
"""The parts of a stress test are named after their recordings, and the file date of a copy is the
time of the run. These names therefore differ between runs.
"""
VOLATILE_COLUMNS = {"pairs_per_second", "seconds", "waited_for_data"}
"""Columns of the training log and keys of the training state that contain times."""


class Trap:
    """Counts the changes below a folder and interrupts the process at one of them.

    Args:
        folder: only changes below this folder are counted.
        at: number of the change at which to interrupt, from 1; with 0, changes are only counted.
        how: kind of interruption, KILL or FULL.
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
        """Watch this process from now on. This cannot be undone."""
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
        """Count a change that is about to happen, and interrupt at it if it is the chosen one."""
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
            # Files can still be renamed and removed on a full disk, so the next change that needs
            # space is chosen instead.
            self.at += 1

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
                if changes and not self.in_transaction:  # committed, but not yet reported
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
    """The folder in which commands are interrupted.

    Every trial begins with the same files at the same paths.

    Attributes:
        folder: contains ``stock`` (the input files of all trials) and ``work`` (the files of the
            current trial).
        names: names of the commands to interrupt; all commands if empty.
    """

    folder: Path
    names: Sequence[str] = ()

    @cached_property
    def stock(self) -> Path:
        """Folder of the input files of the commands, which are made once."""
        return make_stock(self.folder / "stock", self.names)

    @property
    def work(self) -> Path:
        """Folder of the current trial."""
        return self.folder / "work"

    def begin(self, scenario: Scenario) -> None:
        """Create the folder of a trial, with files of the user inside and next to the output."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        for path, text in USER_FILES.items():
            (self.work / path).parent.mkdir(parents=True, exist_ok=True)
            (self.work / path).write_text(text)
        scenario.begin(self.work / "out")

    @cached_property
    def expected(self) -> dict[str, tuple[dict[str, bytes], int]]:
        """Files and number of changes of an uninterrupted run of each scenario."""
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
        """Run a command in a child process and interrupt it at change number ``at``.

        Returns outcome and message.
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
"""Files of the user inside and next to the output folder of each command."""


def contents(folder: Path) -> dict[str, bytes]:
    """Return the contents of every file below a folder by relative path, without run times."""
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
    """Return the bytes of a file without the parts that depend on run times or on the number of
    restarts.
    """
    if name == "metrics.csv":
        rows = [line.split(",") for line in data.decode().splitlines()]
        kept = [at for at, column in enumerate(rows[0]) if column not in VOLATILE_COLUMNS]
        return "\n".join(",".join(row[at] for at in kept) for row in rows).encode()
    if name == "index.tsv":  # a recording that was made again has another date
        rows = [line.split("\t") for line in data.decode().splitlines()]
        return "\n".join("\t".join(row[:2]) for row in rows).encode()
    if name == MADE_KEY:  # consists of 32 random bytes
        return b"a key" if KEY_TEXT.fullmatch(data) else data
    if name == "embeddings.json":
        return re.sub(rb'"signature": "\w+"', b"", data)
    if name == "state.pt":
        return _plain(torch.load(io.BytesIO(data), weights_only=True)).encode()
    return data


def _plain(value: Any) -> str:
    """Return the values of a training state as text, without times."""
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
    """Interrupt a command, run it again, and compare the files. Raise Fault if they differ."""
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
    """Yield trials that interrupt randomly drawn commands."""
    drawn = [scenario for scenario in stage.scenarios for _ in range(scenario.share)]
    for number in range(count):
        rng = np.random.default_rng([seed, 4 if how == KILL else 5, number])
        scenario = drawn[int(rng.integers(len(drawn)))]
        work = partial(try_interruption, stage, scenario, how, int(rng.integers(1 << 30)))
        yield Trial(f"{how} {number}: {scenario.name}", f"{scenario.name}, {how}", work)


def prepare(stage: Stage) -> None:
    """Make the input files of the trials, and run every command once without interruption."""
    tqdm.monitor_interval = 0  # a monitoring thread would not survive the fork
    # A lock between processes would remain locked for ever if its owner were killed.
    tqdm.set_lock(threading.RLock())
    for name in ENCODERS:
        presets = ENCODERS.get(name).presets
        if "test" in presets:
            presets["tiny"] = presets["test"]
    _ = stage.expected
