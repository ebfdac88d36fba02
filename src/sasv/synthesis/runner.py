"""Copies of a whole table: many processes, shards of a job array, killed and started again at will.

A unit is one copy of one utterance. Which units there are depends on the table, the vocoders and the seed alone; a
copy is written whole or not at all and then noted in the log of its shard, so a later run does only what is missing.
"""

import io
import json
import multiprocessing
import os
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import soundfile

from sasv.audio import RATE, probe, read_speech, write_audio
from sasv.core.errors import AudioError, SasvError
from sasv.core.files import locked, read_bytes, sha256, write_json
from sasv.core.progress import Progress, duration, say
from sasv.parallel.sharding import outstanding, parse_shard
from sasv.tables import Utterances
from sasv.vocoders import make_vocoder

AHEAD = 4
"""Units waiting for each worker."""

SAMPLE_SECONDS = 2.0
"""Speech on which each vocoder is timed for the estimate."""

THREADS = 4
"""That read and write files beside a GPU."""


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


@dataclass(frozen=True)
class Makers:
    """The vocoders of a job.

    Attributes:
        names: registry names.
        weights: name -> file or folder of weights, for those that need them.
        device: where networks compute.
    """

    names: Sequence[str]
    weights: dict[str, str] = field(default_factory=dict)
    device: str = "cpu"


def keep_settings(folder: Path, makers: Makers, seed: int) -> None:
    """Note what makes the copies of a folder; SasvError where there are copies by another seed or other weights."""
    for name in makers.names:
        weights = Path(makers.weights.get(name, ""))
        settings = {"seed": seed, "weights": sha256(read_bytes(weights)) if weights.is_file() else str(weights)}
        path = folder / name / "settings.json"
        if not path.exists() or not any(other != path for other in path.parent.iterdir()):  # no copy yet: begin anew
            write_json(path, settings)
        elif json.loads(path.read_text()) != settings:
            raise SasvError(f"{path.parent}: holds copies by another seed or other weights; choose another --out")


class Worker:
    """Makes copies, each vocoder being made once a process."""

    def __init__(self, makers: Makers):
        weights = makers.weights
        self.vocoders = {name: make_vocoder(name, weights.get(name, ""), makers.device) for name in makers.names}

    def copy(self, unit: Unit) -> tuple[float, str]:
        """Make one copy, or take the one that is there; return seconds and digest.

        Raises:
            AudioError: the source cannot be used.
            SasvError: the copy cannot be written.
        """
        if not Path(unit.path).exists():
            write_audio(unit.path, self.vocoders[unit.vocoder](read_speech(unit.source), RATE, unit.seed))
        return found(unit)

    def copies(self, units: Sequence[Unit], waves: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the copies of waves, each vocoder taking all of its own at once."""
        made: dict[int, np.ndarray] = {}
        for name in dict.fromkeys(unit.vocoder for unit in units):
            own = [at for at, unit in enumerate(units) if unit.vocoder == name]
            seeds = [units[at].seed for at in own]
            made |= dict(zip(own, self.vocoders[name].many([waves[at] for at in own], RATE, seeds)))
        return [made[at] for at in range(len(units))]


def found(unit: Unit) -> tuple[float, str]:
    """Return seconds and digest of a copy that was written."""
    return probe(unit.path).seconds, sha256(Path(unit.path).read_bytes())


_worker: Worker | None = None


def _start(makers: Makers) -> None:
    """Begin a worker process."""
    global _worker
    import torch

    torch.set_num_threads(1)
    # A pool's worker does not notice that its parent was killed, and would wait for ever.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = Worker(makers)


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
    plan: Plan, makers: Makers, parts: Path, shard: str = "", workers: int = 1, batch: int = 1
) -> tuple[dict[int, Made], dict[int, str]] | None:
    """Make the copies of a plan that are missing.

    Args:
        plan: what plan_units gave.
        makers: the vocoders in it.
        parts: folder for the logs of the shards.
        shard: ``i/n``, or empty to take torchrun's rank.
        workers: processes; 1 works in this one.
        batch: utterances that a vocoder is given at once, in this process.

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
            made_now = _batched(tasks, makers, batch) if batch > 1 else _made(tasks, makers, workers)
            for number, made in made_now:
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


def _batched(tasks: Iterable[tuple[int, Unit]], makers: Makers, batch: int) -> Iterator[tuple[int, Made | str]]:
    """Yield (unit, what became of it); threads read the next batch and write the last one meanwhile."""
    worker = Worker(makers)
    tasks = iter(tasks)

    def read(unit: Unit) -> np.ndarray | str | None:
        try:
            return None if Path(unit.path).exists() else read_speech(unit.source)
        except AudioError as error:
            return str(error)

    def write(unit: Unit, copy: np.ndarray | None) -> tuple[float, str]:
        if copy is not None:
            write_audio(unit.path, copy)
        return found(unit)

    with ThreadPoolExecutor(THREADS) as pool:

        def coming() -> list[Any]:
            return [(number, unit, pool.submit(read, unit)) for number, unit in islice(tasks, batch)]

        group, written = coming(), list[Any]()
        while group or written:
            following = coming()
            waves = [future.result() for *_, future in group]
            yield from ((number, wave) for (number, *_), wave in zip(group, waves) if isinstance(wave, str))
            new = [at for at, wave in enumerate(waves) if isinstance(wave, np.ndarray)]
            copies = dict(zip(new, worker.copies([group[at][1] for at in new], [waves[at] for at in new])))
            last, written = (
                written,
                [
                    (number, pool.submit(write, unit, copies.get(at)))
                    for at, (number, unit, _) in enumerate(group)
                    if not isinstance(waves[at], str)
                ],
            )
            yield from ((number, Made(number, *future.result())) for number, future in last)
            group = following


def _made(tasks: Iterable[tuple[int, Unit]], makers: Makers, workers: int) -> Iterator[tuple[int, Made | str]]:
    """Yield (unit, what became of it), in this process or as worker processes finish."""
    if workers <= 1:
        global _worker
        _worker = Worker(makers)
        for number, unit in tasks:
            yield number, _copy(number, unit)
        return
    context = multiprocessing.get_context("spawn")  # a fork would share torch's thread pool, and hang
    with ProcessPoolExecutor(workers, context, _start, (makers,)) as pool:
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


def estimate(plan: Plan, makers: Makers, utterances: Utterances, workers: int, batch: int = 1) -> str:
    """Return in words how long the whole plan takes and how much disk, from a few seconds of its own speech."""
    known = utterances.seconds
    total = 0.0 if known is None else float(known[[unit.row for unit in plan.units]].sum())
    if not total:
        return f"{len(plan.units):,} copies; without a column seconds nothing is estimated"
    wave = None
    for unit in plan.units[:20]:
        try:
            wave = read_speech(unit.source)[: int(SAMPLE_SECONDS * RATE)]
            break
        except AudioError:
            continue
    if wave is None:
        return f"{len(plan.units):,} copies; nothing is estimated, the first files cannot be read"
    spent, bytes_each = [], []
    for vocoder in Worker(makers).vocoders.values():
        vocoder(wave[: RATE // 2])  # the first call loads what it needs
        started = time.perf_counter()
        copy = vocoder.many([wave] * batch, RATE, [0] * batch)[0]
        spent.append((time.perf_counter() - started) / (batch * len(wave) / RATE))
        file = io.BytesIO()
        soundfile.write(file, copy, RATE, format=Path(plan.units[0].path).suffix[1:])
        bytes_each.append(len(file.getvalue()) / (len(wave) / RATE))
    needed = total * float(np.mean(spent)) / max(workers, 1)
    return (
        f"{len(plan.units):,} copies of {duration(total)} of speech: about {duration(needed)} on {max(workers, 1)} "
        f"process{'es' if workers > 1 else ''} and {total * float(np.mean(bytes_each)) / 1e9:.2f} GB"
    )
