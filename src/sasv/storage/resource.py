"""Bytes of which ranges can be read, wherever they are."""

import contextlib
import io
import mmap
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, BinaryIO

from sasv.core.errors import SasvError

WHOLE_BYTES = 1 << 20
"""A recording up to this size is read in one request, a larger one in blocks where it is needed."""

BLOCK_BYTES = 1 << 18
KEPT_BLOCKS = 16
KEPT_WHOLE = 32


@dataclass(frozen=True)
class Resource(ABC):
    """Bytes of which ranges can be read.

    Attributes:
        name: as the table has it, for messages.
        size: number of bytes.
        version: a text that changes when the bytes do.
    """

    name: str
    size: int
    version: str

    @property
    def path(self) -> str | bytes | None:
        """The path of a regular file, which libraries open themselves; None for anything else."""
        return None

    @abstractmethod
    def read(self, start: int = 0, stop: int | None = None) -> bytes:
        """Return the bytes of a range.

        Raises:
            AudioError: they are missing or not what was promised.
            StorageError: they cannot be had at the moment.
        """

    def open(self) -> BinaryIO:
        """Open the bytes for a library that reads a stream."""
        if self.size <= WHOLE_BYTES:
            return io.BytesIO(_bytes_of(self))
        return io.BufferedReader(_Blocks(self), BLOCK_BYTES)

    def start(self, count: int) -> bytes:
        """Return the first bytes, at most ``count`` of them."""
        if self.path is None and self.size <= WHOLE_BYTES:
            return _bytes_of(self)[:count]
        return self.read(0, min(count, self.size))

    @contextlib.contextmanager
    def mapped(self) -> Iterator[bytes | mmap.mmap]:
        """Give all bytes; those of a regular file are mapped into memory."""
        if self.path is None:
            yield _bytes_of(self) if self.size <= WHOLE_BYTES else self.read(0, self.size)
            return
        with (
            open(self.path, "rb") as stream,
            mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            yield data


@lru_cache(maxsize=KEPT_WHOLE)
def _bytes_of(resource: Resource) -> bytes:
    """Return all bytes of a small resource; the decoders of one recording ask several times."""
    return resource.read(0, resource.size)


class _Blocks(io.RawIOBase):
    """A stream over a resource that keeps the blocks which it read last: decoders seek back and
    forth.
    """

    def __init__(self, resource: Resource):
        self.resource = resource
        self.at = 0
        self.blocks: dict[int, bytes] = {}

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.resource.size}[whence]
        self.at = max(0, base + offset)
        return self.at

    def tell(self) -> int:
        return self.at

    def readinto(self, buffer: Any) -> int:
        if self.at >= self.resource.size:
            return 0
        number, inside = divmod(self.at, BLOCK_BYTES)
        data = self._block(number)[inside : inside + len(buffer)]
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)

    def _block(self, number: int) -> bytes:
        block = self.blocks.pop(number, None)
        if block is None:
            start = number * BLOCK_BYTES
            block = self.resource.read(start, min(start + BLOCK_BYTES, self.resource.size))
        self.blocks[number] = block
        if len(self.blocks) > KEPT_BLOCKS:
            del self.blocks[next(iter(self.blocks))]
        return block


class QuietStream:
    """A stream for libsndfile, which cannot pass on an exception: the first one is kept in
    ``error``, and the stream seems to end.
    """

    def __init__(self, stream: BinaryIO):
        self.stream = stream
        self.error: SasvError | None = None

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer; 0 at the end, and once reading has failed."""
        if self.error is not None:
            return 0
        try:
            return self.stream.readinto(buffer)  # type: ignore[attr-defined,no-any-return]
        except SasvError as error:
            self.error = error
            return 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a byte."""
        return self.stream.seek(offset, whence)

    def tell(self) -> int:
        """Return the byte at which the stream stands."""
        return self.stream.tell()

    def write(self, data: bytes) -> int:
        """Refuse; libsndfile asks for the method."""
        raise io.UnsupportedOperation("write")

    def check(self) -> None:
        """Raise what reading raised."""
        if self.error is not None:
            raise self.error
