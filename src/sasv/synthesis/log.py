"""The log of finished copies. There is one for each shard, which remains valid if the process is
killed at any time.

A line ``[path]`` is written before a copy is begun, and a line ``[unit, seconds, digest, origin,
bytes, path]`` when it is complete. Logs of older versions have only the first three values.
"""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

from sasv.core.errors import SasvError, write_reason
from sasv.core.files import digest_of_file, read_json, write_json
from sasv.storage.identity import identity_digest
from sasv.synthesis.plan import Makers, Unit

TEMPORARY = re.compile(r"\..*\.(\d+)\.part(\.\w+)?$")
"""Name of a file while it is being written (``core.files.atomic_path``). The number is that of the
process.
"""

FOREIGN_SECONDS = 3600.0
"""Seconds after which a temporary file of another machine counts as abandoned."""


class Made(NamedTuple):
    """A finished copy.

    Attributes:
        unit: number of its unit in the plan.
        seconds: length of the copy.
        digest: SHA-256 of its file.
        origin: digest of its inputs (see ``origin_of``); empty in logs of older versions.
        size: size of its file in bytes; 0 in logs of older versions.
        path: its file, relative to the folder of the job; empty in logs of older versions.
    """

    unit: int
    seconds: float
    digest: str
    origin: str = ""
    size: int = 0
    path: str = ""


@dataclass
class Known:
    """The content of the logs of a folder.

    Attributes:
        made: path, relative to the folder of the job -> all copies that were ever written to it.
        begun: paths of copies that were begun and not completed.
    """

    made: dict[str, list[Made]] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)

    def owns(self, path: str, place: str) -> bool:
        """Whether the file at a path, which the logs call ``place``, was written by sasv."""
        if place in self.begun:
            return True
        digests = {made.digest for made in self.made.get(place, [])}
        return bool(digests) and Path(path).is_file() and digest_of_file(path) in digests


def origin_of(unit: Unit, source: str, makers_identity: str) -> str:
    """Return a digest of the inputs of a copy: the identity of its source, the channel, the
    vocoder, the seed, and the weights.
    """
    return identity_digest(source, unit.channel, unit.vocoder, unit.seed, makers_identity)


def read_logs(out: Path, parts: Path, units: Sequence[Unit]) -> Known:
    """Read the logs of all jobs in a folder.

    Args:
        out: folder of the job.
        parts: folder of the logs of this plan; lines of older versions, without a path, refer to
            units of this plan.
        units: the units of the plan.
    """
    known = Known()
    for log in sorted(out.glob("parts-*/*/made.jsonl")):
        own = log.parent.parent == parts
        text = log.read_text(encoding="utf-8", errors="surrogateescape")
        for line in text[
            : text.rfind("\n") + 1
        ].splitlines():  # a last line without a line break is truncated
            cells = _cells(line)
            if len(cells) == 1 and isinstance(cells[0], str):
                known.begun.add(cells[0])
                continue
            made = _made(cells)
            if made is None:
                continue
            if not made.path:
                if not own or made.unit >= len(units):
                    continue
                made = made._replace(path=relative(units[made.unit].path, out))
            known.made.setdefault(made.path, []).append(made)
            known.begun.discard(made.path)
    return known


def _cells(line: str) -> list[Any]:
    try:
        cells = json.loads(line)
    except ValueError:  # truncated when the process was killed or the disk was full
        return []
    return cells if isinstance(cells, list) else []


def _made(cells: list[Any]) -> Made | None:
    kinds: tuple[tuple[type, ...], ...] = ((int,), (int, float), (str,), (str,), (int,), (str,))
    if len(cells) not in (3, 6):
        return None
    if not all(isinstance(cell, kind) for cell, kind in zip(cells, kinds)):
        return None
    return Made(*cells)


def relative(path: str, out: Path) -> str:
    """Return a path in the form used in a log."""
    return os.path.relpath(path, os.path.abspath(out))


def found_copy(unit: Unit, number: int, origin: str, out: Path, known: Known) -> Made | None:
    """Return the existing copy that was made from exactly this source, or None if the copy has to
    be made.
    """
    records = known.made.get(relative(unit.path, out))
    if not records:
        return None
    try:
        copy = Path(unit.path).stat()
        for made in reversed(records):
            if made.origin:
                good = made.origin == origin and made.size == copy.st_size
            else:  # from an older version, and made after the last change of the source
                good = copy.st_mtime_ns >= Path(unit.source).stat().st_mtime_ns
            if good:
                return made._replace(unit=number)
    except (OSError, ValueError):
        return None
    return None


class Log:
    """The log of one shard, open for writing. A truncated line is removed first."""

    def __init__(self, path: Path):
        self.path = path
        self.stream: IO[bytes] = open(path, "ab")  # noqa: SIM115 (closed by close)
        self._heal()

    def _heal(self) -> None:
        data = self.path.read_bytes()
        if data and not data.endswith(b"\n"):
            self.stream.truncate(data.rfind(b"\n") + 1)

    def begin(self, path: str) -> None:
        """Record that a copy is about to be written."""
        self._write([path])

    def add(self, made: Made) -> None:
        """Record that a copy is complete."""
        self._write(list(made))

    def _write(self, cells: list[Any]) -> None:
        try:
            self.stream.write(json.dumps(cells).encode("utf-8", "surrogateescape") + b"\n")
            self.stream.flush()
        except OSError as error:
            raise SasvError(
                f"{self.path}: cannot write: {write_reason(error)}; finished copies are kept"
            ) from error

    def close(self) -> None:
        """Close the file."""
        try:
            self.stream.close()
        except OSError as error:
            raise SasvError(f"{self.path}: cannot write: {write_reason(error)}") from error


def clear_temporaries(folders: set[str], alone: bool, now: float) -> int:
    """Remove incomplete files that killed processes left in some folders; return their number.

    Args:
        folders: folders with copies.
        alone: whether no other machine works on this job; otherwise, only old files of processes
            that are not running here are removed.
        now: current time in seconds.
    """
    removed = 0
    for folder in folders:
        if not Path(folder).is_dir():
            continue
        with os.scandir(folder) as entries:
            left = [(entry, TEMPORARY.match(entry.name)) for entry in entries]
        for entry, match in left:
            if match is None or _alive(int(match[1])):
                continue
            if alone or now - entry.stat().st_mtime > FOREIGN_SECONDS:
                Path(entry.path).unlink(missing_ok=True)
                removed += 1
    return removed


def _alive(process: int) -> bool:
    if process == os.getpid():
        return False  # from an earlier process with this number, because this one has not begun yet
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def keep_settings(folder: Path, makers: Makers, seed: int) -> None:
    """Record the settings with which the copies of a folder are made. Raises SasvError if there are
    copies made with another seed or other weights.
    """
    for name in makers.names:
        settings = {"seed": seed, "weights": makers.identity(name)}
        path = folder / name / "settings.json"
        there = list(path.parent.iterdir()) if path.parent.is_dir() else []
        if not any(
            other != path and not other.name.startswith(".") for other in there
        ):  # there is no copy yet, so begin again
            write_json(path, settings)
            continue
        if not path.exists():
            raise SasvError(
                f"{path.parent}: contains files but no settings.json, so it is unknown how they "
                "were made; move the folder away, or choose another --out"
            )
        kept = read_json(path, remedy=f"remove the folder {path.parent}, or choose another --out")
        if kept != settings:
            raise SasvError(
                f"{path.parent}: contains copies made with another seed or other weights; choose "
                "another --out"
            )
