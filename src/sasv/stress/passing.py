"""Applies all conditions to all recordings, and runs a system on the results; resumable, in shards.

The outputs of a system are kept in one file for each recording, with an entry for each condition.
Therefore, a further condition, vocoder, or speaker only requires the new outputs.
"""

import json
import logging
import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from sasv.core.errors import AudioError
from sasv.core.files import atomic_path, digest_of_bytes
from sasv.core.progress import Progress
from sasv.decision import Recording
from sasv.parallel.sharding import outstanding, parse_shard
from sasv.storage.identity import file_identities
from sasv.stress.conditions import CONDITIONS, Surroundings, apply_condition
from sasv.stress.speech import read_beginning
from sasv.stress.systems import FunctionSystem, System

logger = logging.getLogger("sasv")

READERS = 4
"""Number of threads that prepare recordings for the system."""

CACHED = 256
"""Number of enrolment recordings that are cached for a function of two recordings."""

FORMAT = "1"


@dataclass(frozen=True)
class File:
    """A recording to process.

    Attributes:
        name: name of the recording.
        path: its file.
        channel: channel to use.
        source: name of the original, if it is a copy; else ``name``.
        speaker: speaker of the original.
        conditions: conditions to apply.
        claimed: speakers who are claimed to speak.
    """

    name: str
    path: str
    channel: str
    source: str
    speaker: str
    conditions: tuple[str, ...]
    claimed: tuple[str, ...] = ()


Passed = Recording | np.ndarray | str
"""Output of a system for a recording: an embedding with measurements; for a function of two
recordings, the score of each claim, (claims,); or the reason why there is none.
"""


@dataclass(frozen=True)
class Passage:
    """Settings that are common to all recordings.

    Attributes:
        around: speaker -> sounds that conditions add to the recordings of this speaker.
        enrolments: speaker -> enrolment files.
        seconds: maximum number of seconds of each recording that are used.
        seed: random seed of the conditions.
    """

    around: Mapping[str, Surroundings]
    enrolments: Mapping[str, Sequence[File]]
    seconds: float
    seed: int

    def wave(self, file: File) -> np.ndarray:
        """Return the original samples of a file."""
        return read_beginning(file.path, self.seconds, file.channel)


def pass_all(
    system: System, files: Sequence[File], passage: Passage, folder: Path, shard: str = ""
) -> dict[tuple[str, str], Passed] | None:
    """Process the files of a shard. Existing outputs are not computed again.

    Args:
        system: the system.
        files: all files of the test.
        passage: settings for all recordings.
        folder: folder for the outputs.
        shard: ``i/n``, or empty to use the rank from torchrun.

    Returns:
        (name of the file, condition) -> output of the system; None while other shards are still
        working.
    """
    index, count = parse_shard(shard)
    places = [folder / f"{key}.npz" for key in keys_of(system, files, passage)]
    entries = entries_of(files, passage)
    known = [read_part(place) for place in places]

    def missing(number: int) -> list[str]:
        return [
            condition
            for condition in files[number].conditions
            if entries[number][condition] not in known[number]
        ]

    mine, todo = outstanding(len(files), index, count, lambda number: not missing(number))
    if len(todo) < len(mine):
        logger.info(f"{system.name}: {len(mine) - len(todo)} of {len(mine)} recordings are done")
    total = sum(len(missing(number)) for number in todo)
    worker = Worker(system, passage)
    with Progress(system.name, total, "recordings") as progress:
        for number in todo:
            wanted = missing(number)
            passed = worker.passed(files[number], wanted)
            new = {entries[number][name]: value for name, value in zip(wanted, passed)}
            known[number] = {**known[number], **new}
            write_part(places[number], known[number])
            progress.add(len(wanted))
    others = [number for number in range(len(files)) if number % count != index]
    for number in others:
        known[number] = read_part(places[number])
    if any(missing(number) for number in others):
        logger.info(
            f"{system.name}: shard {index + 1}/{count} is done; the last shard to finish writes "
            "the report"
        )
        return None
    return {
        (file.name, condition): named(known[number][entries[number][condition]], file)
        for number, file in enumerate(files)
        for condition in file.conditions
    }


class Worker:
    """Applies conditions to recordings and runs a system."""

    def __init__(self, system: System, passage: Passage):
        self.system = system
        self.passage = passage
        self.enrolment_wave = lru_cache(CACHED)(passage.wave)

    def passed(self, file: File, conditions: Sequence[str]) -> list[Passed]:
        """Return the output of the system for a file under each condition."""
        try:
            wave = self.passage.wave(file)
        except AudioError as error:
            return [str(error)] * len(conditions)
        around = self.passage.around[file.speaker]

        def changed(condition: str) -> np.ndarray:
            return apply_condition(condition, wave, self.passage.seed, file.source, around)

        with ThreadPoolExecutor(READERS) as pool:
            waiting = [pool.submit(changed, condition) for condition in conditions]
            return [
                self._heard(file, condition, future)
                for condition, future in zip(conditions, waiting)
            ]

    def _heard(self, file: File, condition: str, future: Future[np.ndarray]) -> Passed:
        name = f"{file.path} ({condition})"
        try:
            wave = future.result()
            if isinstance(self.system, FunctionSystem) and self.system.compares:
                return self._scores(self.system, file, wave, name)
            return self.system.embed(wave, name)
        except AudioError as error:
            return str(error)

    def _scores(
        self, system: FunctionSystem, file: File, wave: np.ndarray, name: str
    ) -> np.ndarray:
        """Return the score of each claim, the mean over the enrolment recordings."""
        scores = []
        for speaker in file.claimed:
            each = [
                system.score(self.enrolment_wave(enrolled), wave, f"{enrolled.path} and {name}")
                for enrolled in self.passage.enrolments[speaker]
            ]
            scores.append(float(np.mean(each)))
        return np.array(scores)


def named(passed: Passed, file: File) -> Passed:
    """Return a recording with its current name, because stored outputs contain no names."""
    if isinstance(passed, Recording):
        return Recording(**{**vars(passed), "name": file.name})
    return passed


def keys_of(system: System, files: Sequence[File], passage: Passage) -> list[str]:
    """Return a digest for each file of everything that determines its entries, except the
    condition.
    """
    identities = dict(zip(files, file_identities([file.path for file in files])))
    keys = []
    for file in files:
        parts = [
            FORMAT,
            system.identity,
            identities[file],
            file.channel,
            file.source,
            f"{passage.seconds} {passage.seed}",
        ]
        if system.compares:
            for speaker in file.claimed:
                enrolled = passage.enrolments[speaker]
                parts += [speaker, *(identities[one] for one in enrolled)]
        keys.append(digest(*parts)[:32])
    return keys


def entries_of(files: Sequence[File], passage: Passage) -> list[dict[str, str]]:
    """Return for each file: condition -> name of its entry, a digest of the condition and of the
    sounds that it adds.
    """
    added: dict[tuple[str, str], str] = {}
    found = []
    for file in files:
        names = {}
        for condition in file.conditions:
            needs = CONDITIONS[condition].needs
            key = (condition, file.speaker if needs == "others" else "")
            if key not in added:
                paths = getattr(passage.around[file.speaker], needs) if needs else ()
                added[key] = digest(
                    condition, CONDITIONS[condition].text, *file_identities(list(paths))
                )[:16]
            names[condition] = added[key]
        found.append(names)
    return found


def digest(*parts: str) -> str:
    """Return the digest of strings."""
    encoded = (part.encode("utf-8", "surrogateescape") for part in parts)
    return digest_of_bytes(*(len(part).to_bytes(8, "little") + part for part in encoded))


def read_part(path: Path) -> dict[str, Passed]:
    """Return the entries of an output file, or none if it is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as part:
            about: dict[str, Any] = json.loads(str(part["about"]))
            return {name: read_entry(entry, part.get(name)) for name, entry in about.items()}
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile):
        return {}


def read_entry(about: dict[str, Any], values: np.ndarray | None) -> Passed:
    """Return an entry that ``write_part`` wrote."""
    if "failure" in about:
        return str(about["failure"])
    if "recording" in about:
        return Recording(name="", vector=values, **about["recording"])
    if values is None:
        raise ValueError("an entry without numbers")
    return values


def write_part(path: Path, entries: Mapping[str, Passed]) -> None:
    """Write the entries of an output file, atomically."""
    about: dict[str, Any] = {}
    arrays: dict[str, Any] = {}
    for name, entry in entries.items():
        if isinstance(entry, str):
            about[name] = {"failure": entry}
            continue
        if isinstance(entry, Recording):
            facts = asdict(entry)
            vector = facts.pop("vector")
            facts.pop("name")
            about[name] = {"recording": facts}
            if vector is not None:
                arrays[name] = vector
            continue
        about[name] = {}
        arrays[name] = entry
    with atomic_path(path) as temporary:
        np.savez(temporary, about=np.array(json.dumps(about)), **arrays)
