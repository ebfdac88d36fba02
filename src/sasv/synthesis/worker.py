"""Makes single copies, in this process or in worker processes that end when their parent ends."""

import multiprocessing
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sasv.audio import RATE, probe, read_speech, write_audio
from sasv.core.errors import AudioError, SasvError
from sasv.core.files import digest_of_file
from sasv.synthesis.plan import Makers, Unit
from sasv.vocoders import make_vocoder

SINGLE_FAILURES = (36, 22, 84)
"""Errors that prevent a single copy from being written (ENAMETOOLONG, EINVAL, EILSEQ). Any other
write error ends the job.
"""


class Task(NamedTuple):
    """A unit to make now.

    Attributes:
        number: number of the unit in the plan.
        unit: the copy.
        replace: whether an existing file was written by sasv and may be replaced.
    """

    number: int
    unit: Unit
    replace: bool


class Copy(NamedTuple):
    """The result of a copy: its length in seconds, and the digest and the size of its file."""

    seconds: float
    digest: str
    size: int


class Worker:
    """Makes copies. Each vocoder is loaded once in each process."""

    def __init__(self, makers: Makers):
        self.vocoders = {
            name: make_vocoder(name, makers.weights.get(name, ""), makers.device)
            for name in makers.names
        }

    def copy(self, task: Task) -> Copy:
        """Make one copy.

        Raises:
            AudioError: the source cannot be used, or the copy cannot be written to its path.
            SasvError: nothing can be written, for instance because the disk is full.
        """
        wave = read_source(task)
        return write_copy(task, self.vocoders[task.unit.vocoder](wave, RATE, task.unit.seed))

    def copies(self, units: Sequence[Unit], waves: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the copies of waveforms. Each vocoder copies all of its waveforms at once."""
        made: dict[int, np.ndarray] = {}
        for name in dict.fromkeys(unit.vocoder for unit in units):
            own = [at for at, unit in enumerate(units) if unit.vocoder == name]
            seeds = [units[at].seed for at in own]
            made |= dict(zip(own, self.vocoders[name].many([waves[at] for at in own], RATE, seeds)))
        return [made[at] for at in range(len(units))]


def read_source(task: Task) -> np.ndarray:
    """Read the source of a copy. Raises AudioError if it cannot be used."""
    return read_speech(task.unit.source, channel=task.unit.channel)


def write_copy(task: Task, wave: np.ndarray) -> Copy:
    """Write a copy and return its length, digest, and size.

    A file that is not in a log is not changed. It is kept as the copy if its content is the same;
    otherwise, it belongs to the user.

    Raises:
        AudioError: a file of the user has the same path, or its name is not possible.
        SasvError: nothing can be written.
    """
    path = Path(task.unit.path)
    beside = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    there = os.path.lexists(path) and not task.replace
    try:
        write_audio(beside if there else path, wave)
    except SasvError as error:
        reason = error.__cause__
        if isinstance(reason, OSError) and reason.errno in SINGLE_FAILURES:
            raise AudioError(str(error)) from error
        raise
    if there:
        same = path.is_file() and digest_of_file(beside) == digest_of_file(path)
        beside.unlink()
        if not same:
            raise AudioError(
                f"{path}: this file was changed since it was written, or was not written by sasv; "
                "move it away and run the same command again"
            )
    return Copy(probe(path).seconds, digest_of_file(path), path.stat().st_size)


_process_worker: list[Worker] = []
"""The worker of a worker process; empty in the process that started the job."""


def start_process(makers: Makers) -> None:
    """Begin a worker process."""
    import torch

    torch.set_num_threads(1)
    # The worker of a pool does not notice if its parent is killed, and would wait indefinitely.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _process_worker.append(Worker(makers))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def copy_in_process(task: Task) -> Copy | str:
    """Make a copy in a worker process; return the reason if it cannot be made."""
    return attempt(_process_worker[0], task)


def attempt(worker: Worker, task: Task) -> Copy | str:
    """Make a copy; return the reason if it cannot be made."""
    try:
        return worker.copy(task)
    except AudioError as error:
        return str(error)
