"""Copies a whole table with many processes or in the shards of a job array. A run can be
interrupted at any time and resumed.

A unit is one copy of one utterance. The units depend only on the table, the vocoders, and the seed.
A copy is written completely or not at all, and then recorded in the log of its shard, so a later
run makes only the missing copies.
"""

import logging
import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path

import numpy as np

from sasv.core.errors import AudioError, SasvError
from sasv.core.files import locked, read_json, write_json
from sasv.core.progress import Progress
from sasv.parallel.sharding import outstanding, parse_shard
from sasv.storage.identity import file_identities
from sasv.synthesis.log import (
    Known,
    Log,
    Made,
    clear_temporaries,
    found_copy,
    origin_of,
    read_logs,
    relative,
)
from sasv.synthesis.plan import Makers, Plan
from sasv.synthesis.worker import (
    Copy,
    Task,
    Worker,
    attempt,
    copy_in_process,
    read_source,
    start_process,
    write_copy,
)

logger = logging.getLogger("sasv")

AHEAD = 4
"""Number of units in the queue of each worker."""

THREADS = 4
"""Number of threads that read and write files while a GPU computes."""

Result = tuple[Task, Copy | str]
"""A task with its copy, or with the reason why there is none."""


def run(
    plan: Plan,
    makers: Makers,
    parts: Path,
    shard: str = "",
    workers: int = 1,
    batch: int = 1,
    join: bool = True,
) -> tuple[dict[int, Made], dict[int, str]] | None:
    """Make the copies of a plan that are missing or whose source has changed.

    Args:
        plan: the plan from ``plan_units``.
        makers: the vocoders in the plan.
        parts: folder for the logs of the shards, in the folder of the job.
        shard: ``i/n``, or empty to take torchrun's rank.
        workers: number of processes; 1 makes the copies in this process.
        batch: number of utterances that a vocoder copies at once, in this process.
        join: join the results of all shards if all are finished; otherwise, another process has to
            do it with ``outcome``.

    Returns:
        Unit -> copy, and unit -> reason of failure, if all shards are finished; None while others
        are still working.

    Raises:
        SasvError: the disk is full, a worker was killed, another run is working on this shard, or
            copies were lost.
    """
    index, count = parse_shard(shard)
    folder = parts / f"{index + 1}-of-{count}"
    job = parts.parent
    with locked(folder):
        (folder / "done.json").unlink(missing_ok=True)
        origins = _origins(plan, makers)
        known = read_logs(job, parts, plan.units)

        def done(number: int) -> bool:
            return found_copy(plan.units[number], number, origins[number], job, known) is not None

        mine, todo = outstanding(len(plan.units), index, count, done)
        if len(todo) < len(mine):
            others = "; making the others" if todo else ""
            logger.info(f"{len(mine) - len(todo)} of {len(mine)} copies exist already{others}")
        clear_temporaries(
            {os.path.dirname(plan.units[number].path) for number in mine}, count == 1, time.time()
        )
        failures = _make(plan, todo, origins, known, makers, folder, job, workers, batch)
        write_json(folder / "done.json", failures)
    marks = _marks(parts, count)
    if not join:
        return None
    if not all(path.exists() for path in marks):
        logger.info(f"shard {index + 1}/{count} is done; the last shard to finish writes the table")
        return None
    return _outcome(plan, origins, read_logs(job, parts, plan.units), marks, job)


def outcome(
    plan: Plan, makers: Makers, parts: Path, count: int
) -> tuple[dict[int, Made], dict[int, str]]:
    """Join the results of the shards of a finished job.

    Args:
        plan: the plan from ``plan_units``.
        makers: the vocoders in the plan.
        parts: folder for the logs of the shards.
        count: number of shards.

    Returns:
        Unit -> copy, and unit -> reason of failure.

    Raises:
        SasvError: a shard is not finished, or copies were lost.
    """
    known = read_logs(parts.parent, parts, plan.units)
    return _outcome(plan, _origins(plan, makers), known, _marks(parts, count), parts.parent)


def _marks(parts: Path, count: int) -> list[Path]:
    """Return the files that mark finished shards."""
    return [parts / f"{other + 1}-of-{count}" / "done.json" for other in range(count)]


def _origins(plan: Plan, makers: Makers) -> list[str]:
    """Return the digest of the inputs of each copy."""
    weights = {name: makers.identity(name) for name in makers.names}
    sources = file_identities([unit.source for unit in plan.units])
    return [
        origin_of(unit, source, weights[unit.vocoder]) for unit, source in zip(plan.units, sources)
    ]


def _make(
    plan: Plan,
    todo: list[int],
    origins: list[str],
    known: Known,
    makers: Makers,
    folder: Path,
    job: Path,
    workers: int,
    batch: int,
) -> dict[int, str]:
    """Make copies and record them in the log; return unit -> reason for those that could not be
    made.
    """
    failures: dict[int, str] = {}
    log = Log(folder / "made.jsonl")
    try:
        with Progress("copies", len(todo)) as progress:

            def tasks() -> Iterator[Task]:
                for number in todo:
                    unit = plan.units[number]
                    place = relative(unit.path, job)
                    replace = not os.path.lexists(unit.path) or known.owns(unit.path, place)
                    if replace:
                        log.begin(place)
                    yield Task(number, unit, replace)

            if batch > 1:
                results = _batched(tasks(), makers, batch)
            elif workers > 1:
                results = _in_processes(tasks(), makers, workers)
            else:
                results = _here(tasks(), makers)
            for task, copy in results:
                if isinstance(copy, str):
                    failures[task.number] = copy
                else:
                    place = relative(task.unit.path, job)
                    log.add(
                        Made(
                            task.number,
                            copy.seconds,
                            copy.digest,
                            origins[task.number],
                            copy.size,
                            place,
                        )
                    )
                progress.add()
    finally:
        log.close()
    return failures


def _outcome(
    plan: Plan, origins: list[str], known: Known, marks: list[Path], job: Path
) -> tuple[dict[int, Made], dict[int, str]]:
    """Join the results of all shards. Raises SasvError if a copy neither exists nor failed."""
    reasons: dict[int, str] = {}
    for path in marks:
        found = read_json(path)
        try:
            reasons |= {int(number): str(reason) for number, reason in found.items()}
        except ValueError as error:
            raise SasvError(
                f"{path}: the file is damaged; remove it and run the same command again"
            ) from error
    made: dict[int, Made] = {}
    failures: dict[int, str] = {}
    lost = []
    for number, unit in enumerate(plan.units):
        copy = found_copy(unit, number, origins[number], job, known)
        if copy is not None:
            made[number] = copy
        elif number in reasons:
            failures[number] = reasons[number]
        else:
            lost.append(unit.path)
    if lost:
        for path in marks:
            path.unlink(missing_ok=True)
        raise SasvError(
            f"{len(lost)} of {len(plan.units)} copies are missing (the first: {lost[0]}), because "
            "they were removed or their sources changed in the meantime; run the same command "
            "again"
        )
    return made, failures


def _here(tasks: Iterable[Task], makers: Makers) -> Iterator[Result]:
    """Yield the result of each task, one after the other, in this process."""
    worker = Worker(makers)
    for task in tasks:
        yield task, attempt(worker, task)


def _in_processes(tasks: Iterable[Task], makers: Makers, workers: int) -> Iterator[Result]:
    """Yield the result of each task when a worker process has finished it."""
    context = multiprocessing.get_context(
        "spawn"
    )  # a forked process would share the thread pool of torch and hang
    with ProcessPoolExecutor(workers, context, start_process, (makers,)) as pool:
        waiting: dict[Future[Copy | str], Task] = {}
        try:
            for task in tasks:
                waiting[pool.submit(copy_in_process, task)] = task
                if len(waiting) >= AHEAD * workers:
                    for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                        yield waiting.pop(future), future.result()
            for future in list(waiting):
                yield waiting[future], future.result()
        except BrokenProcessPool as error:
            raise SasvError(
                f"a worker process died ({error}), often because of a lack of memory; run the same "
                "command again with fewer --num-workers to resume"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _batched(tasks: Iterable[Task], makers: Makers, batch: int) -> Iterator[Result]:
    """Yield the result of each task. Meanwhile, threads read the next batch and write the last
    one.
    """
    worker = Worker(makers)
    tasks = iter(tasks)
    with ThreadPoolExecutor(THREADS) as pool:

        def next_group() -> list[tuple[Task, Future[np.ndarray | str]]]:
            return [(task, pool.submit(_read, task)) for task in islice(tasks, batch)]

        group = next_group()
        written: list[tuple[Task, Future[Copy | str]]] = []
        while group or written:
            following = next_group()
            good: list[Task] = []
            waves: list[np.ndarray] = []
            for task, future in group:
                wave = future.result()
                if isinstance(wave, str):
                    yield task, wave
                else:
                    good.append(task)
                    waves.append(wave)
            copies = worker.copies([task.unit for task in good], waves)
            last = written
            written = [(task, pool.submit(_write, task, copy)) for task, copy in zip(good, copies)]
            for task, writing in last:
                yield task, writing.result()
            group = following


def _read(task: Task) -> np.ndarray | str:
    try:
        return read_source(task)
    except AudioError as error:
        return str(error)


def _write(task: Task, copy: np.ndarray) -> Copy | str:
    try:
        return write_copy(task, copy)
    except AudioError as error:
        return str(error)
