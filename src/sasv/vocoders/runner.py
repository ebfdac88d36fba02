"""Copies of a whole table: many processes, shards of a job array, killed and started again at will.

A unit is one copy of one utterance. Which units there are depends on the table, the vocoders and the seed alone; a
copy is written whole or not at all and then noted in the log of its shard, so a later run does only what is missing.
"""

import json
import multiprocessing
import os
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from sasv.audio import RATE, probe, read_speech, write_audio
from sasv.core.errors import AudioError, SasvError
from sasv.core.files import sha256, write_json
from sasv.core.processes import locked
from sasv.core.progress import Progress, duration, say
from sasv.core.sharding import outstanding, parse_shard
from sasv.tables import Utterances
from sasv.vocoders import VOCODERS
from sasv.vocoders.base import Vocoder

AHEAD = 4
"""Units waiting for each worker."""

SAMPLE_SECONDS = 4.0
"""Speech on which each vocoder is timed for the estimate."""


class Unit(NamedTuple):
    """One copy to make: the row of its source, the vocoder, where it goes, and the seed of its draws."""

    row: int
    source: str
    vocoder: str
    path: str
    seed: int


class Made(NamedTuple):
    """A copy that was made: number of its unit, seconds, digest of the file."""

    unit: int
    seconds: float
    digest: str


@dataclass(frozen=True)
class Plan:
    """All copies of a job, and what names the job."""

    units: list[Unit]
    signature: str


def plan_units(
    utterances: Utterances,
    vocoders: Sequence[str],
    out: Path,
    seed: int = 0,
    choose: Literal["all", "one"] = "all",
    suffix: str = "flac",
) -> Plan:
    """Return the copies to make, in a tree ``out/VOCODER`` that mirrors the one of the sources.

    Args:
        utterances: bona fide speech.
        vocoders: registry names.
        out: folder for the audio.
        seed: of the choice and of vocoders that draw.
        choose: all vocoders for each utterance, or one at random.
        suffix: flac or wav.
    """
    paths = [os.path.abspath(path) for path in utterances.paths]
    root = os.path.commonpath([os.path.dirname(path) for path in paths])
    stems = [str(Path(os.path.relpath(path, root)).with_suffix("")) for path in paths]
    if len(set(stems)) < len(stems):  # two sources of one name: their full names differ
        stems = [os.path.relpath(path, root) for path in paths]
    units = []
    for row, (name, stem) in enumerate(zip(utterances.ids, stems)):
        drawn = zlib.crc32(f"{seed}:{name}".encode())
        chosen = (
            list(vocoders) if choose == "all" else [vocoders[int(np.random.default_rng(drawn).integers(len(vocoders)))]]
        )
        for vocoder in chosen:
            path = str((out / vocoder / f"{stem}.{suffix}").absolute())
            units.append(Unit(row, paths[row], vocoder, path, drawn))
    return Plan(units, sha256(*(f"{unit.source}\t{unit.path}\t{unit.seed}\n" for unit in units)))


class Worker:
    """Makes copies, each vocoder being made once a process."""

    def __init__(self, names: Sequence[str]):
        self.vocoders: dict[str, Vocoder] = {name: VOCODERS.get(name)() for name in names}

    def copy(self, unit: Unit) -> tuple[float, str]:
        """Make one copy, or take the one that is there; return seconds and digest.

        Raises:
            AudioError: the source cannot be used.
            SasvError: the copy cannot be written.
        """
        path = Path(unit.path)
        if not path.exists():
            write_audio(path, self.vocoders[unit.vocoder](read_speech(unit.source), unit.seed))
        return probe(unit.path).seconds, sha256(path.read_bytes())


_worker: Worker | None = None


def _start(names: Sequence[str]) -> None:
    """Begin a worker process."""
    global _worker
    import torch

    torch.set_num_threads(1)
    # A pool's worker does not notice that its parent was killed, and would wait for ever.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = Worker(names)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _copy(number: int, unit: Unit) -> Made | str:
    """Make a copy in a worker process; return the reason where the source cannot be used."""
    assert _worker is not None
    try:
        return Made(number, *_worker.copy(unit))
    except AudioError as error:
        return str(error)


def run(
    plan: Plan, names: Sequence[str], parts: Path, shard: str = "", workers: int = 1
) -> tuple[dict[int, Made], dict[int, str]] | None:
    """Make the copies of a plan that are missing.

    Args:
        plan: what plan_units gave.
        names: the vocoders in it.
        parts: folder for the logs of the shards.
        shard: ``i/n``, or empty to take torchrun's rank.
        workers: processes; 1 works in this one.

    Returns:
        Unit -> what was made, and unit -> why not, where this process found all shards done; None while others work.

    Raises:
        SasvError: the disk is full, a worker was killed, or another run works on this shard.
    """
    index, count = parse_shard(shard)
    name = f"{index + 1}-of-{count}"
    with locked(parts / name):
        (parts / name / "done.json").unlink(missing_ok=True)
        noted = _noted(parts)

        def done(number: int) -> bool:
            return number in noted and Path(plan.units[number].path).exists()

        mine, todo = outstanding(len(plan.units), index, count, done)
        if len(todo) < len(mine):
            say(f"{len(mine) - len(todo)} of {len(mine)} copies are there already; making the others")
        failures: dict[int, str] = {}
        with open(parts / name / "made.jsonl", "a") as log, Progress("copies", len(todo)) as progress:
            tasks = ((number, plan.units[number]) for number in todo)
            for number, made in _made(tasks, names, workers):
                if isinstance(made, Made):
                    log.write(json.dumps(made) + "\n")
                    log.flush()
                else:
                    failures[number] = made
                progress.add()
        write_json(parts / name / "done.json", failures)
    finished = [parts / f"{other + 1}-of-{count}" / "done.json" for other in range(count)]
    if not all(path.exists() for path in finished):
        say(f"shard {index + 1}/{count} is done; the last shard to finish writes the table")
        return None
    for path in finished:
        failures |= {int(number): reason for number, reason in json.loads(path.read_text()).items()}
    everything = _noted(parts)
    return everything, {number: reason for number, reason in failures.items() if number not in everything}


def _noted(parts: Path) -> dict[int, Made]:
    """Return the copies that the logs of all shards know; a line cut off by a kill is left out."""
    found: dict[int, Made] = {}
    for path in sorted(parts.glob("*/made.jsonl")):
        for line in path.read_text().splitlines():
            try:
                made = Made(*json.loads(line))
            except ValueError:
                continue
            found[made.unit] = made
    return found


def _made(tasks: Iterable[tuple[int, Unit]], names: Sequence[str], workers: int) -> Iterator[tuple[int, Made | str]]:
    """Yield (unit, what became of it), in this process or as worker processes finish."""
    if workers <= 1:
        global _worker
        _worker = Worker(names)
        for number, unit in tasks:
            yield number, _copy(number, unit)
        return
    context = multiprocessing.get_context("spawn")  # a fork would share torch's thread pool, and hang
    with ProcessPoolExecutor(workers, context, _start, (list(names),)) as pool:
        waiting = {}
        try:
            for number, unit in tasks:
                waiting[pool.submit(_copy, number, unit)] = number
                if len(waiting) >= AHEAD * workers:
                    for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                        yield waiting.pop(future), future.result()
            for future in list(waiting):
                yield waiting[future], future.result()
        except BrokenProcessPool as error:
            raise SasvError(
                f"a worker process died ({error}); often memory is short: the same command goes on, try fewer --workers"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def estimate(plan: Plan, names: Sequence[str], utterances: Utterances, workers: int) -> str:
    """Return in words how long the whole plan takes and how much disk, from a few seconds of its own speech."""
    known = utterances.seconds
    total = 0.0 if known is None else float(known[[unit.row for unit in plan.units]].sum())
    if not total:
        return f"{len(plan.units):,} copies; without a column seconds nothing is estimated"
    worker = Worker(names)
    wave = None
    for unit in plan.units[:20]:
        try:
            wave = read_speech(unit.source)[: int(SAMPLE_SECONDS * RATE)]
            break
        except AudioError:
            continue
    if wave is None:
        return f"{len(plan.units):,} copies; nothing is estimated, the first files cannot be read"
    spent = []
    for vocoder in worker.vocoders.values():
        vocoder(wave[:RATE])  # the first call loads what it needs
        started = time.perf_counter()
        vocoder(wave)
        spent.append((time.perf_counter() - started) / (len(wave) / RATE))
    needed = total * float(np.mean(spent)) / max(workers, 1)
    disk = total * RATE * 2 * 0.6  # FLAC of speech
    return (
        f"{len(plan.units):,} copies of {duration(total)} of speech: about {duration(needed)} on {max(workers, 1)} "
        f"process{'es' if workers > 1 else ''} and {disk / 1e9:.2f} GB"
    )
