"""Members of tars, found by an index beside the tar: ``shard-000012.tar.index``.

An index is tab-separated text with the columns member, offset (of its first byte in the tar), size
and sha256, sorted by the bytes of the member's name. It is mapped into memory and searched in
place, so that a thousand shards need neither loading time nor memory in each worker. If a tar on
this machine has no index, each process reads through it once to build one.
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
"""Length of the name field in the header of a member; longer names are stored in a further header.
"""

REMEDY = "run sasv pack again, or download the tar and its index again"


class Entry(NamedTuple):
    """One line of an index; ``sha256`` is "-" if it is not known."""

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
            raise AudioError(
                f"{name}: this is not the index of a tar, or it is truncated; {REMEDY}"
            )
        self.name = name
        self.data = data

    def find(self, member: str) -> Entry | None:
        """Return the entry of a member, or None if there is none, by a binary search over the
        bytes.
        """
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
        """Return all entries, in the order of their position in the tar."""
        lines = self.data[len(HEADER) :].splitlines()
        return sorted(map(self._entry, lines), key=lambda entry: entry.offset)

    def _entry(self, line: bytes) -> Entry:
        cells = line.decode("utf-8", "surrogateescape").split("\t")
        try:
            member, offset, size, digest = cells
            return Entry(member, int(offset), int(size), digest)
        except ValueError as error:
            raise AudioError(f"{self.name}: invalid line '{' '.join(cells)}'; {REMEDY}") from error


def index_bytes(entries: Iterable[Entry]) -> bytes:
    """Return the content of an index file."""
    lines = ["\t".join(map(str, entry)).encode("utf-8", "surrogateescape") for entry in entries]
    # A name may be a prefix of another one, so the names are compared, not the lines.
    lines.sort(key=lambda line: line.partition(b"\t")[0])
    return HEADER + b"".join(line + b"\n" for line in lines)


def write_index(tar: Path, entries: Iterable[Entry]) -> None:
    """Write the index of a tar beside it."""
    write_bytes(f"{tar}{SUFFIX}", index_bytes(entries))


def load_index(tar: Path) -> Index:
    """Return the index of a tar on this machine. Raises AudioError if it is missing or invalid."""
    return _loaded(local_file(f"{tar}{SUFFIX}"))


def index_of(tar: Resource, find: Callable[[str], Resource]) -> Index:
    """Return the index of a tar.

    Args:
        tar: the tar.
        find: returns the file or object with a given name.

    Raises:
        AudioError: the index is missing or invalid.
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
            f"{name}: the index of the tar cannot be read ({error}); upload it to the folder of "
            "the tar"
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
            f"{tar.name}: this is not a tar, or it is truncated ({error}); download it again"
        ) from error
    return Index(tar.name, index_bytes(entries))


@dataclass(frozen=True)
class TarMember(Resource):
    """A member of a tar, read by the range of its bytes."""

    tar: Resource
    entry: Entry

    def read(self, start: int = 0, stop: int | None = None) -> bytes:
        """Return the bytes of a range.

        If the range begins at the first byte, the header before it is read too, and must be that of
        the member. A member that was fetched completely from another machine is compared with its
        checksum.
        """
        stop = self.size if stop is None else min(stop, self.size)
        offset = self.entry.offset
        if start:
            return self.tar.read(offset + start, offset + stop)
        data = self._with_header(stop)
        if self.tar.path is None and stop == self.size and not self._intact(data):
            data = self._with_header(stop)
            if not self._intact(data):
                raise AudioError(
                    f"{self.name}: its checksum differs from that in the index of the tar; {REMEDY}"
                )
        return data

    def _with_header(self, stop: int) -> bytes:
        data = self.tar.read(self.entry.offset - BLOCK, self.entry.offset + stop)
        if len(data) < BLOCK + stop:
            raise AudioError(
                f"{self.name}: the tar ends before the end of this member; download the tar again"
            )
        head = data[:BLOCK]
        member = self.entry.member.encode("utf-8", "surrogateescape")
        known = self.entry.sha256 == "-" or head[:NAME_BYTES].rstrip(b"\0") == member[:NAME_BYTES]
        if not known or _octal(head[124:136]) != self.size:
            raise AudioError(
                f"{self.name}: the index does not belong to this tar, which has another member at "
                f"this position; {REMEDY}"
            )
        return data[BLOCK:]

    def _intact(self, data: bytes) -> bool:
        wanted = self.entry.sha256
        return wanted == "-" or hashlib.sha256(data).hexdigest() == wanted


def _octal(field: bytes) -> int:
    """Return the number in a field of a tar header, or -1 if it contains none."""
    try:
        return tarfile.nti(field)  # type: ignore[attr-defined,no-any-return]
    except tarfile.TarError:
        return -1


def tar_member(name: str, tar: Resource, index: Index, member: str) -> TarMember:
    """Return a member of a tar.

    Args:
        name: path as written in the table.
        tar: the tar.
        index: its index.
        member: name of the member.

    Raises:
        AudioError: the tar has no such member, it is empty, or the tar ends before it.
    """
    entry = index.find(member)
    if entry is None:
        raise AudioError(f"{name}: {index.name} lists no such member; check the path")
    if entry.size == 0:
        raise AudioError(
            f"{name}: the recording is empty (0 bytes); replace it and run sasv pack again"
        )
    if entry.offset < BLOCK or entry.offset + entry.size > tar.size:
        raise AudioError(
            f"{name}: the tar has {tar.size:,} bytes, but according to its index this member ends "
            f"at byte {entry.offset + entry.size:,}, so the tar is truncated or the index belongs "
            f"to another one; {REMEDY}"
        )
    version = entry.sha256 if entry.sha256 != "-" else tar.version
    return TarMember(name, entry.size, version, tar, entry)


def member_header(member: str, size: int) -> bytes:
    """Return the header of a member as ``sasv pack`` writes it. It depends neither on the date nor
    on the user.
    """
    info = tarfile.TarInfo(member)
    info.size = size
    info.mode = 0o644
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


END = bytes(2 * BLOCK)
"""Marks the end of a tar, after the last member."""


def padding(size: int) -> bytes:
    """Return the zeros that fill the last block of a member."""
    return bytes(-size % BLOCK)
