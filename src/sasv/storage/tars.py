"""Members of tars, found by an index beside the tar: ``shard-000012.tar.index``.

An index is tab-separated text with the columns member, offset (of its first byte in the tar), size
and sha256, sorted by the bytes of the member's name. It is mapped into memory and searched where it
lies, so that a thousand shards cost neither time to load nor memory in each worker. A tar of this
machine without an index is searched through once by each process.
"""

import hashlib
import mmap
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

from sasv.core.errors import AudioError
from sasv.core.files import write_bytes
from sasv.storage.local import local_file
from sasv.storage.resource import Resource

SUFFIX = ".index"
HEADER = b"member\toffset\tsize\tsha256\n"
BLOCK = tarfile.BLOCKSIZE
NAME_BYTES = 100
"""Bytes of a name in the header before a member; longer names stand elsewhere too."""

REMEDY = "make it again (sasv pack), or fetch the tar and its index again"


class Entry(NamedTuple):
    """One line of an index; ``sha256`` is "-" where it is not known."""

    member: str
    offset: int
    size: int
    sha256: str


class Index:
    """The members of a tar.

    Args:
        name: the file of the index, for messages.
        data: its bytes.
    """

    def __init__(self, name: str, data: bytes | mmap.mmap):
        if data[: len(HEADER)] != HEADER or data[-1:] != b"\n":
            raise AudioError(f"{name}: not an index of a tar, or cut short; {REMEDY}")
        self.name = name
        self.data = data

    def find(self, member: str) -> Entry | None:
        """Return the entry of a member, None where there is none; a binary search by bytes."""
        wanted = member.encode("utf-8", "surrogateescape")
        low = len(HEADER)
        high = len(self.data)
        while low < high:
            start = self.data.rfind(b"\n", len(HEADER) - 1, (low + high) // 2) + 1
            stop = self.data.find(b"\n", start)
            line = self.data[start:stop]
            name = line.partition(b"\t")[0]
            if name == wanted:
                return self._entry(line)
            if name < wanted:
                low = stop + 1
            else:
                high = start
        return None

    def entries(self) -> list[Entry]:
        """Return all entries, in the order of their bytes in the tar."""
        lines = self.data[len(HEADER) :].splitlines()
        return sorted(map(self._entry, lines), key=lambda entry: entry.offset)

    def _entry(self, line: bytes) -> Entry:
        cells = line.decode("utf-8", "surrogateescape").split("\t")
        try:
            member, offset, size, digest = cells
            return Entry(member, int(offset), int(size), digest)
        except ValueError as error:
            raise AudioError(f"{self.name}: broken line '{' '.join(cells)}'; {REMEDY}") from error


def index_bytes(entries: Iterable[Entry]) -> bytes:
    """Return the text of an index."""
    lines = ["\t".join(map(str, entry)).encode("utf-8", "surrogateescape") for entry in entries]
    # A name may be the beginning of another: the order is that of the names, not of the lines.
    lines.sort(key=lambda line: line.partition(b"\t")[0])
    return HEADER + b"".join(line + b"\n" for line in lines)


def write_index(tar: Path, entries: Iterable[Entry]) -> None:
    """Write the index of a tar beside it."""
    write_bytes(f"{tar}{SUFFIX}", index_bytes(entries))


def load_index(tar: Path) -> Index:
    """Return the index beside a tar of this machine. AudioError where there is none, or a broken
    one.
    """
    return _loaded(local_file(f"{tar}{SUFFIX}"))


def index_of(tar: Resource, find: Callable[[str], Resource]) -> Index:
    """Return the index of a tar.

    Args:
        tar: the tar.
        find: gives the file or object of a name.

    Raises:
        AudioError: there is none, or it is broken.
    """
    if tar.path is None:
        return _fetched(tar.name + SUFFIX, find)
    if not Path(tar.name + SUFFIX).exists():
        return _scanned(tar)
    return _loaded(find(tar.name + SUFFIX))


@cache
def _fetched(name: str, find: Callable[[str], Resource]) -> Index:
    try:
        return Index(name, find(name).read())
    except AudioError as error:
        raise AudioError(
            f"{name}: the tar has no index that can be read; upload it beside the tar ({error})"
        ) from error


@lru_cache(maxsize=1 << 14)
def _loaded(index: Resource) -> Index:
    assert index.path is not None
    with open(index.path, "rb") as stream:
        return Index(index.name, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))


@lru_cache(maxsize=1 << 10)
def _scanned(tar: Resource) -> Index:
    assert tar.path is not None
    try:
        with open(tar.path, "rb") as stream, tarfile.open(fileobj=stream, mode="r:") as members:
            entries = [
                Entry(member.name, member.offset_data, member.size, "-")
                for member in members
                if member.isreg() and not set(member.name) & set("\t\r\n")
            ]
    except (tarfile.TarError, OSError) as error:
        raise AudioError(
            f"{tar.name}: not a tar, or cut short ({error}); fetch it again"
        ) from error
    return Index(tar.name, index_bytes(entries))


@dataclass(frozen=True)
class TarMember(Resource):
    """A member of a tar, read by the range of its bytes."""

    tar: Resource
    entry: Entry

    def read(self, start: int = 0, stop: int | None = None) -> bytes:
        """Return the bytes of a range.

        With the first byte comes the header before it, which must be that of the member. A member
        that came whole from another machine is compared with its sum.
        """
        stop = self.size if stop is None else min(stop, self.size)
        offset = self.entry.offset
        if start:
            return self.tar.read(offset + start, offset + stop)
        data = self._with_header(stop)
        if self.tar.path is None and stop == self.size and not self._intact(data):
            data = self._with_header(stop)
            if not self._intact(data):
                raise AudioError(f"{self.name}: other bytes than its index says; {REMEDY}")
        return data

    def _with_header(self, stop: int) -> bytes:
        data = self.tar.read(self.entry.offset - BLOCK, self.entry.offset + stop)
        if len(data) < BLOCK + stop:
            raise AudioError(f"{self.name}: the tar ends inside it; fetch the tar again")
        head = data[:BLOCK]
        member = self.entry.member.encode("utf-8", "surrogateescape")
        known = self.entry.sha256 == "-" or head[:NAME_BYTES].rstrip(b"\0") == member[:NAME_BYTES]
        if not known or _octal(head[124:136]) != self.size:
            raise AudioError(
                f"{self.name}: the index of the tar does not match it: another member is there; "
                f"{REMEDY}"
            )
        return data[BLOCK:]

    def _intact(self, data: bytes) -> bool:
        wanted = self.entry.sha256
        return wanted == "-" or hashlib.sha256(data).hexdigest() == wanted


def _octal(field: bytes) -> int:
    """Return the number in a field of a tar header, -1 where there is none."""
    try:
        return tarfile.nti(field)  # type: ignore[attr-defined,no-any-return]
    except tarfile.TarError:
        return -1


def tar_member(name: str, tar: Resource, index: Index, member: str) -> TarMember:
    """Return a member of a tar.

    Args:
        name: as the table has it.
        tar: the tar.
        index: its index.
        member: name of the member.

    Raises:
        AudioError: the tar has no such member, it is empty, or the tar ends before it.
    """
    entry = index.find(member)
    if entry is None:
        raise AudioError(f"{name}: the tar has no such member (by {index.name}); check the path")
    if entry.size == 0:
        raise AudioError(f"{name}: empty (0 bytes); pack it again")
    if entry.offset < BLOCK or entry.offset + entry.size > tar.size:
        raise AudioError(
            f"{name}: the tar has {tar.size:,} bytes, its index says that the member ends at "
            f"{entry.offset + entry.size:,}; the tar was cut, or the index is of another one: "
            f"{REMEDY}"
        )
    version = entry.sha256 if entry.sha256 != "-" else tar.version
    return TarMember(name, entry.size, version, tar, entry)


def member_header(member: str, size: int) -> bytes:
    """Return the header of a member as ``sasv pack`` writes it: the same bytes on any day and for
    any user.
    """
    info = tarfile.TarInfo(member)
    info.size = size
    info.mode = 0o644
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


END = bytes(2 * BLOCK)
"""What stands behind the last member."""


def padding(size: int) -> bytes:
    """Return the zeros that fill up the last block of a member."""
    return bytes(-size % BLOCK)
