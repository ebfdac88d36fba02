"""A table's recordings in a few large tars with indexes, and a table that points into them.

A tar holds plain files named ``KEY.EXT``, so ``webdataset`` and ``tar`` read it too. The shards
depend on the table and the options alone: a run that was killed and is run again ends with the same
bytes.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Literal
from urllib.parse import quote

from sasv.audio.flac import as_flac
from sasv.audio.formats import suffix_of
from sasv.core.errors import AudioError, SasvError, listed
from sasv.core.files import atomic_path, digest_of_file, locked, read_json, write_json
from sasv.core.progress import Progress
from sasv.storage import locate
from sasv.storage.locations import MEMBER
from sasv.storage.tars import END, Entry, load_index, member_header, padding, write_index
from sasv.tables.content import rows_digest
from sasv.tables.table import Table
from sasv.tables.utterances import Utterances

Audio = Literal["as-is", "flac"]

RECORD = "pack.json"
SHARDS = "shards.tsv"
TABLE = "utterances.tsv"
FORMAT = 1

UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)")
SMALLEST_SHARD = 10_000

AHEAD = 16
"""Recordings for each thread that are read ahead of the one that is written."""


@dataclass(frozen=True)
class Shard:
    """A finished tar: its name, members, size, and sum."""

    name: str
    members: int
    size: int
    sha256: str


@dataclass(frozen=True)
class Packed:
    """What was written: the table, and the shards."""

    table: Path
    shards: Sequence[Shard]


def bytes_of(text: str) -> int:
    """Return the bytes that a size means: ``1GB``, ``500MB`` (units of 1000), or plain bytes.

    Raises:
        SasvError: it is no size, or too small for a shard.
    """
    found = SIZE.fullmatch(text.strip().lower())
    if found is None or found[2] not in UNITS:
        raise SasvError(f"--shard-size {text}: write a size as 1GB or 500MB")
    size = int(float(found[1]) * UNITS[found[2]])
    if size < SMALLEST_SHARD:
        raise SasvError(f"--shard-size {text}: a shard has at least {SMALLEST_SHARD:,} bytes")
    return size


def key_of(utterance: str) -> str:
    """Return the key of an utterance in a tar: letters, digits, ``-``, ``_``, and ``/`` stay,
    anything else is written as ``%2E``. A key has no dot, because webdataset ends it there.
    """
    folders = utterance.split("/")
    whole = "" in folders  # a leading, doubled or trailing slash would not survive unpacking
    return quote(utterance.encode("utf-8", "surrogateescape"), safe="" if whole else "/").translate(
        {ord("."): "%2E", ord("~"): "%7E"}
    )


def pack(
    utterances: Utterances,
    out: Path,
    shard_bytes: int,
    audio: Audio = "as-is",
    num_workers: int = 4,
    verify: bool = False,
) -> Packed:
    """Write the recordings of a table into tars, and the table that points into them.

    A recording of several rows is written once. Shards that are finished are kept.

    Args:
        utterances: the table.
        out: folder for ``shard-000000.tar`` and on, their indexes, ``shards.tsv`` and
            ``utterances.tsv``.
        shard_bytes: largest size of a tar; a larger recording has one of its own.
        audio: recordings as they are, or as FLAC where that keeps their samples to the bit.
        num_workers: threads that read.
        verify: read every finished tar again and compare its sum.

    Raises:
        SasvError: a recording cannot be read, the folder holds another pack, or a finished tar has
            changed.
    """
    if not len(utterances):
        raise SasvError(f"{utterances.table.name}: no rows to pack; check --where")
    if (out / TABLE).resolve() == Path(utterances.table.name).resolve():
        raise SasvError(f"{out / TABLE}: is the table to be packed; choose another folder")
    first_rows: dict[str, int] = {}
    for row, path in enumerate(utterances.paths):
        first_rows.setdefault(path, row)
    sources = list(first_rows)
    ids = utterances.ids
    keys = [key_of(ids[row]) for row in first_rows.values()]
    with locked(out):
        _keep_record(out, utterances, shard_bytes, audio)
        writer = _Writer(out, shard_bytes, keys)
        writer.resume()
        _check_present(utterances.table.name, sources[len(writer.members) :], num_workers)
        with (
            ThreadPoolExecutor(max(1, num_workers)) as pool,
            Progress("pack", len(sources)) as progress,
        ):
            first = len(writer.members)
            progress.add(first)
            writer.write(_read_ahead(pool, sources[first:], audio, num_workers), progress)
        _check(out, writer.shards, len(sources), verify)
        places = dict(zip(sources, writer.members))
        table = utterances.table.with_column("path", [places[path] for path in utterances.paths])
        table.save(out / TABLE)
    return Packed(out / TABLE, writer.shards)


class _Writer:
    """Writes shard after shard.

    Attributes:
        shards: those that are finished.
        members: ``shard-000000.tar#KEY.EXT`` of each recording in them, in order.
    """

    def __init__(self, out: Path, shard_bytes: int, keys: Sequence[str]):
        self.out = out
        self.shard_bytes = shard_bytes
        self.keys = keys
        self.shards: list[Shard] = []
        self.members: list[str] = []

    def resume(self) -> None:
        """Take over the shards that an earlier run finished, up to the first that is not whole."""
        for shard in _read_shards(self.out):
            path = self.out / shard.name
            expected = self.keys[len(self.members) : len(self.members) + shard.members]
            try:
                entries = load_index(path).entries()
                whole = path.stat().st_size == shard.size
            except (AudioError, OSError):
                return
            if not whole or [entry.member.partition(".")[0] for entry in entries] != expected:
                return
            self._finish(shard, entries)

    def write(self, recordings: Iterator[tuple[str, bytes]], progress: Progress) -> None:
        """Write the recordings that are left, each with its suffix and its bytes."""
        pending = next(recordings, None)
        while pending is not None:
            path = self.out / f"shard-{len(self.shards):06}.tar"
            entries: list[Entry] = []
            with atomic_path(path) as temporary, open(temporary, "wb") as file:
                tar = _Tar(file)
                while pending is not None:
                    suffix, data = pending
                    member = self.keys[len(self.members) + len(entries)] + suffix
                    if entries and tar.size_with(member, data) > self.shard_bytes:
                        break
                    entries.append(tar.add(member, data))
                    progress.add()
                    pending = next(recordings, None)
                size, digest = tar.end()
            write_index(path, entries)
            self._finish(Shard(path.name, len(entries), size, digest), entries)
            _write_shards(self.out, self.shards)

    def _finish(self, shard: Shard, entries: Sequence[Entry]) -> None:
        self.shards.append(shard)
        start = shard.name.removesuffix(".tar") + MEMBER
        self.members += [start + entry.member for entry in entries]


class _Tar:
    """A tar that is being written, and the sum of its bytes."""

    def __init__(self, file: BinaryIO):
        self.file = file
        self.size = 0
        self.digest = hashlib.sha256()

    def size_with(self, member: str, data: bytes) -> int:
        """Return the size of the finished tar if this member were its last."""
        inside = len(member_header(member, len(data))) + len(data) + len(padding(len(data)))
        return self.size + inside + len(END)

    def add(self, member: str, data: bytes) -> Entry:
        """Write a member; return its entry in the index."""
        self._write(member_header(member, len(data)))
        offset = self.size
        self._write(data)
        self._write(padding(len(data)))
        return Entry(member, offset, len(data), hashlib.sha256(data).hexdigest())

    def end(self) -> tuple[int, str]:
        """Write the end; return the size and the sum of the tar."""
        self._write(END)
        return self.size, self.digest.hexdigest()

    def _write(self, data: bytes) -> None:
        self.file.write(data)
        self.digest.update(data)
        self.size += len(data)


def _read_ahead(
    pool: ThreadPoolExecutor, sources: Sequence[str], audio: Audio, num_workers: int
) -> Iterator[tuple[str, bytes]]:
    """Yield (suffix, bytes) of each recording, in order, while the next ones are being read."""

    def read(path: str) -> tuple[str, bytes]:
        resource = locate(path)
        converted = as_flac(resource) if audio == "flac" else None
        if converted is not None:
            return ".flac", converted
        return suffix_of(path) or ".audio", resource.read(0, resource.size)

    rest = iter(sources)
    waiting = [pool.submit(read, path) for path in islice(rest, AHEAD * max(1, num_workers))]
    while waiting:
        yield waiting.pop(0).result()
        waiting += [pool.submit(read, path) for path in islice(rest, 1)]


def _check_present(table: str, sources: Sequence[str], num_workers: int) -> None:
    """SasvError names recordings that are missing, before anything is written."""

    def fault(path: str) -> str:
        try:
            locate(path)
        except AudioError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(max(1, num_workers)) as pool:
        faults = list(filter(None, pool.map(fault, sources)))
    if faults:
        raise SasvError(
            f"{table}: {len(faults)} of {len(sources)} recordings cannot be packed "
            f"({listed(faults, 3)}); fix them or drop their rows"
        )


def _check(out: Path, shards: Sequence[Shard], sources: int, verify: bool) -> None:
    """SasvError where the counts do not add up, or a tar is not what was written."""
    packed = sum(shard.members for shard in shards)
    if packed != sources:
        raise SasvError(
            f"{out}: its shards hold {packed} recordings of {sources}; remove {SHARDS} there and "
            "run the same command again"
        )
    if not verify:
        return
    with Progress("verify", len(shards)) as progress:
        for shard in shards:
            if digest_of_file(out / shard.name) != shard.sha256:
                raise SasvError(
                    f"{out / shard.name}: changed since it was written; remove it and run the "
                    "same command again"
                )
            progress.add(1)


def _keep_record(out: Path, utterances: Utterances, shard_bytes: int, audio: Audio) -> None:
    """Write what the shards are made of; SasvError where the folder holds another pack."""
    record = {
        "format": FORMAT,
        "rows": rows_digest(utterances),
        "shard_bytes": shard_bytes,
        "audio": audio,
    }
    path = out / RECORD
    if path.exists() and read_json(path) != record:
        raise SasvError(
            f"{out}: holds shards of another table, or made with other options; choose another "
            "--out, or remove it"
        )
    write_json(path, record)


def _read_shards(out: Path) -> list[Shard]:
    if not (out / SHARDS).exists():
        return []
    table = Table.load(out / SHARDS)
    table.require("shard", "members", "bytes", "sha256")
    return [
        Shard(name, int(members), int(size), digest)
        for name, members, size, digest in zip(
            table.texts("shard"),
            table.numbers("members").tolist(),
            table.numbers("bytes").tolist(),
            table.texts("sha256"),
        )
    ]


def _write_shards(out: Path, shards: Sequence[Shard]) -> None:
    columns: dict[str, Sequence[object]] = {
        "shard": [shard.name for shard in shards],
        "members": [shard.members for shard in shards],
        "bytes": [shard.size for shard in shards],
        "sha256": [shard.sha256 for shard in shards],
    }
    Table.build(columns, str(out / SHARDS)).save(out / SHARDS)
