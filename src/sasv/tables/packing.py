"""Packs the recordings of a table into a few large indexed tars, and writes a table that points
into them.

A tar contains plain files named ``KEY.EXT``, so that ``webdataset`` and ``tar`` can read it as
well. The shards depend only on the table and the options, so that a run that was killed and started
again produces the same bytes. A shard whose recordings were replaced since is written again.
"""

import hashlib
import logging
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
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
from sasv.storage.identity import file_identities, identity_digest
from sasv.storage.locations import MEMBER, scheme_of
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
"""Number of recordings that each thread reads ahead of the one that is being written."""

logger = logging.getLogger("sasv")


@dataclass(frozen=True)
class Shard:
    """A finished tar.

    Attributes:
        name: name of the file.
        members: number of recordings.
        size: size in bytes.
        sha256: checksum.
        sources: state of the files that were packed (see ``sources_state``); empty if unknown.
    """

    name: str
    members: int
    size: int
    sha256: str
    sources: str = ""


@dataclass(frozen=True)
class Packed:
    """Result of packing: the table and the shards."""

    table: Path
    shards: Sequence[Shard]


def bytes_of(text: str) -> int:
    """Return the number of bytes of a size: ``1GB``, ``500MB`` (units of 1000), or plain bytes.

    Raises:
        SasvError: the text is not a size, or the size is too small for a shard.
    """
    found = SIZE.fullmatch(text.strip().lower())
    if found is None or found[2] not in UNITS:
        raise SasvError(f"--shard-size {text}: write a size as 1GB or 500MB")
    size = int(float(found[1]) * UNITS[found[2]])
    if size < SMALLEST_SHARD:
        raise SasvError(f"--shard-size {text}: a shard must have at least {SMALLEST_SHARD:,} bytes")
    return size


def key_of(utterance: str) -> str:
    """Return the key of an utterance in a tar. Letters, digits, ``-``, ``_``, and ``/`` stay; other
    characters are escaped (``%2E``). A key has no dot, because webdataset would end it there.
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

    A recording that several rows refer to is written once. Finished shards of an interrupted run
    are kept.

    Args:
        utterances: the table.
        out: folder for ``shard-000000.tar``, ``shard-000001.tar`` and so on, their indexes,
            ``shards.tsv``, and ``utterances.tsv``.
        shard_bytes: maximum size of a tar; a larger recording gets a tar of its own.
        audio: write recordings unchanged, or as FLAC where that is lossless.
        num_workers: number of threads that read.
        verify: read every finished tar again and compare its checksum.

    Raises:
        SasvError: a recording cannot be read, the folder contains shards of another table, or a
            finished tar has changed.
    """
    sources = sources_of(utterances, out)
    with locked(out):
        keep_record(out, utterances, shard_bytes, audio)
        writer = Writer(out, shard_bytes, sources)
        writer.resume()
        first = len(writer.members)
        sizes_of(utterances.table.name, sources.paths[first:], num_workers)
        with (
            ThreadPoolExecutor(max(1, num_workers)) as pool,
            Progress("pack", len(sources.paths)) as progress,
        ):
            progress.add(first)
            writer.write(read_ahead(pool, sources.paths[first:], audio, num_workers), progress)
        return finish(utterances, out, sources, writer, verify)


@dataclass(frozen=True)
class Sources:
    """The recordings of a table, each once: their paths, and their keys in the tars."""

    paths: Sequence[str]
    keys: Sequence[str]


def sources_of(utterances: Utterances, out: Path) -> Sources:
    """Return the recordings to be packed.

    Raises:
        SasvError: there are none, or ``out`` contains the table itself.
    """
    if not len(utterances):
        raise SasvError(f"{utterances.table.name}: there are no rows to pack; check --where")
    if (out / TABLE).resolve() == Path(utterances.table.name).resolve():
        raise SasvError(
            f"{out / TABLE}: this is the table to pack, which would be overwritten; choose another "
            "folder"
        )
    first_rows: dict[str, int] = {}
    for row, path in enumerate(utterances.paths):
        first_rows.setdefault(path, row)
    ids = utterances.ids
    return Sources(list(first_rows), [key_of(ids[row]) for row in first_rows.values()])


def sources_state(paths: Sequence[str]) -> str:
    """Return a digest of the sizes and modification times of files, to find out whether they have
    changed; empty if one of them is gone. Remote recordings are not looked up.
    """
    found = file_identities([path for path in paths if not scheme_of(path)])
    states = [identity.split("\t")[1:] for identity in found]
    return "" if ["missing"] in states else identity_digest(*states)


def finish(
    utterances: Utterances, out: Path, sources: Sources, writer: "Writer", verify: bool
) -> Packed:
    """Check the tars, and write the table that points into them."""
    _check(out, writer.shards, len(sources.paths), verify)
    places = dict(zip(sources.paths, writer.members))
    table = utterances.table.with_column("path", [places[path] for path in utterances.paths])
    table.save(out / TABLE)
    return Packed(out / TABLE, writer.shards)


class Writer:
    """Writes one shard after another.

    Attributes:
        shards: the finished shards.
        members: ``shard-000000.tar#KEY.EXT`` for each recording in them, in order.
    """

    def __init__(self, out: Path, shard_bytes: int, sources: Sources):
        self.out = out
        self.shard_bytes = shard_bytes
        self.keys = sources.keys
        self.paths = sources.paths
        self.shards: list[Shard] = []
        self.members: list[str] = []

    def resume(self) -> None:
        """Reuse the shards of an earlier run, up to the first one that is incomplete or whose
        recordings have changed since.
        """
        for shard in _read_shards(self.out):
            first = len(self.members)
            expected = self.keys[first : first + shard.members]
            entries = entries_of(self.out, shard, expected)
            if entries is None or is_outdated(shard, self.paths[first : first + shard.members]):
                return
            self.add(shard, entries)

    def write(self, recordings: Iterator[tuple[str, bytes]], progress: Progress) -> None:
        """Write the remaining recordings, given as (suffix, bytes)."""
        left = Recordings(recordings)
        while left.next is not None:
            path = tar_path(self.out, len(self.shards))
            first = len(self.members)
            shard, entries = write_tar(path, self.keys[first:], left, self.shard_bytes, progress)
            paths = self.paths[first : first + shard.members]
            self.add(replace(shard, sources=sources_state(paths)), entries)
            self.save()

    def save(self) -> None:
        """Write the list of the shards."""
        _write_shards(self.out, self.shards)

    def add(self, shard: Shard, entries: Sequence[Entry]) -> None:
        """Add a finished shard."""
        self.shards.append(shard)
        start = shard.name.removesuffix(".tar") + MEMBER
        self.members += [start + entry.member for entry in entries]


class Recordings:
    """Recordings that are still to be written, as (suffix, bytes).

    Attributes:
        next: the next recording, None after the last.
    """

    def __init__(self, recordings: Iterator[tuple[str, bytes]]):
        self.recordings = recordings
        self.next = next(recordings, None)

    def advance(self) -> None:
        """Move to the next recording."""
        self.next = next(self.recordings, None)


def tar_path(out: Path, number: int) -> Path:
    """Return the path of a tar, by its number from 0."""
    return out / f"shard-{number:06}.tar"


def write_tar(
    path: Path, keys: Sequence[str], left: Recordings, shard_bytes: int, progress: Progress
) -> tuple[Shard, list[Entry]]:
    """Write as many recordings as fit into a tar, at least one, and the index of the tar.

    Args:
        path: the tar.
        keys: keys of the remaining recordings.
        left: the remaining recordings; those that do not fit stay there.
        shard_bytes: maximum size of the tar in bytes.
        progress: counts the recordings.
    """
    entries: list[Entry] = []
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        tar = _Tar(file)
        while left.next is not None:
            suffix, data = left.next
            member = keys[len(entries)] + suffix
            if entries and tar.size + member_bytes(member, len(data)) + len(END) > shard_bytes:
                break
            entries.append(tar.add(member, data))
            progress.add()
            left.advance()
        size, digest = tar.end()
    write_index(path, entries)
    return Shard(path.name, len(entries), size, digest), entries


def member_bytes(member: str, size: int) -> int:
    """Return the number of bytes that a member of ``size`` bytes takes in a tar."""
    return len(member_header(member, size)) + size + len(padding(size))


def is_outdated(shard: Shard, paths: Sequence[str]) -> bool:
    """Return whether files of a shard have been replaced since it was written. Without a record of
    them, or if they are gone, the shard stays valid.
    """
    now = sources_state(paths) if shard.sources else ""
    if now in ("", shard.sources):
        return False
    logger.warning("%s: its recordings have changed since; it is written again", shard.name)
    return True


def entries_of(out: Path, shard: Shard, expected: Sequence[str]) -> list[Entry] | None:
    """Return the members of a finished shard; None if the tar is incomplete or does not have the
    expected keys.
    """
    path = out / shard.name
    try:
        entries = load_index(path).entries()
        whole = path.stat().st_size == shard.size
    except (AudioError, OSError):
        return None
    if not whole or [entry.member.partition(".")[0] for entry in entries] != list(expected):
        return None
    return entries


class _Tar:
    """A tar that is being written, and the checksum of its bytes."""

    def __init__(self, file: BinaryIO):
        self.file = file
        self.size = 0
        self.digest = hashlib.sha256()

    def add(self, member: str, data: bytes) -> Entry:
        """Write a member; return its entry in the index."""
        self._write(member_header(member, len(data)))
        offset = self.size
        self._write(data)
        self._write(padding(len(data)))
        return Entry(member, offset, len(data), hashlib.sha256(data).hexdigest())

    def end(self) -> tuple[int, str]:
        """Write the end of the tar; return its size and checksum."""
        self._write(END)
        return self.size, self.digest.hexdigest()

    def _write(self, data: bytes) -> None:
        self.file.write(data)
        self.digest.update(data)
        self.size += len(data)


def read_ahead(
    pool: ThreadPoolExecutor, sources: Sequence[str], audio: Audio, num_workers: int
) -> Iterator[tuple[str, bytes]]:
    """Yield (suffix, bytes) of each recording, in order, while the next ones are being read."""

    def read(path: str) -> tuple[str, bytes]:
        resource = locate(path)
        converted = as_flac(resource) if audio == "flac" else None
        if converted is not None:
            return ".flac", converted
        return suffix_in_tar(path), resource.read(0, resource.size)

    rest = iter(sources)
    waiting = [pool.submit(read, path) for path in islice(rest, AHEAD * max(1, num_workers))]
    while waiting:
        yield waiting.pop(0).result()
        waiting += [pool.submit(read, path) for path in islice(rest, 1)]


def suffix_in_tar(path: str) -> str:
    """Return the suffix of a recording in a tar if it is stored unchanged."""
    return suffix_of(path) or ".audio"


def sizes_of(table: str, sources: Sequence[str], num_workers: int) -> list[int]:
    """Return the sizes of recordings in bytes. Raise SasvError for missing recordings, before
    anything is written.
    """

    def size(path: str) -> int | str:
        try:
            return locate(path).size
        except AudioError as error:
            return str(error)

    with ThreadPoolExecutor(max(1, num_workers)) as pool:
        found = list(pool.map(size, sources))
    faults = [fault for fault in found if isinstance(fault, str)]
    if faults:
        raise SasvError(
            f"{table}: {len(faults)} of {len(sources)} recordings cannot be packed "
            f"({listed(faults, 3)}); fix them or remove their rows"
        )
    return [size for size in found if isinstance(size, int)]


def _check(out: Path, shards: Sequence[Shard], sources: int, verify: bool) -> None:
    """Raise SasvError if the counts are inconsistent, or if a tar has changed since it was
    written.
    """
    packed = sum(shard.members for shard in shards)
    if packed != sources:
        raise SasvError(
            f"{out}: its shards contain {packed} of {sources} recordings; remove {SHARDS} there "
            "and run the same command again"
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


def keep_record(out: Path, utterances: Utterances, shard_bytes: int, audio: Audio) -> None:
    """Record the table and options of the shards; raise SasvError if the folder contains other
    shards.
    """
    record = {
        "format": FORMAT,
        "rows": rows_digest(utterances),
        "shard_bytes": shard_bytes,
        "audio": audio,
    }
    path = out / RECORD
    if path.exists() and read_json(path) != record:
        raise SasvError(
            f"{out}: contains shards of another table, or shards made with other options; choose "
            "another --out, or remove it"
        )
    write_json(path, record)


def _read_shards(out: Path) -> list[Shard]:
    if not (out / SHARDS).exists():
        return []
    table = Table.load(out / SHARDS)
    table.require("shard", "members", "bytes", "sha256")
    known = "sources" in table.columns
    sources = table.texts("sources") if known else [""] * len(table)
    return [
        Shard(name, int(members), int(size), digest, state)
        for name, members, size, digest, state in zip(
            table.texts("shard"),
            table.numbers("members").tolist(),
            table.numbers("bytes").tolist(),
            table.texts("sha256"),
            sources,
        )
    ]


def _write_shards(out: Path, shards: Sequence[Shard]) -> None:
    columns: dict[str, Sequence[object]] = {
        "shard": [shard.name for shard in shards],
        "members": [shard.members for shard in shards],
        "bytes": [shard.size for shard in shards],
        "sha256": [shard.sha256 for shard in shards],
        "sources": [shard.sources for shard in shards],
    }
    Table.build(columns, str(out / SHARDS)).save(out / SHARDS)
