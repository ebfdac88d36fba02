"""Data of which ranges of bytes can be read, wherever it is stored."""

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
"""A recording up to this size is read in one request; of a larger one, only the required blocks are
read.
"""

BLOCK_BYTES = 1 << 18
KEPT_BLOCKS = 16
KEPT_WHOLE = 32


@dataclass(frozen=True)
class Resource(ABC):
    """Data of which ranges of bytes can be read.

    Attributes:
        name: path as written in the table, for messages.
        size: number of bytes.
        version: a string that changes when the bytes change.
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
            AudioError: the bytes are missing, or differ from what the index promises.
            StorageError: they cannot be fetched at the moment.
        """

    def open(self) -> BinaryIO:
        """Open the data for a library that reads from a stream."""
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
        """Yield all bytes. A regular file is mapped into memory."""
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
    """Return all bytes of a small resource. They are cached because the decoders of a recording
    read them several times.
    """
    return resource.read(0, resource.size)


class _Blocks(io.RawIOBase):
    """A stream over a resource that caches the most recently read blocks, because decoders seek
    back and forth.
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
    """A stream for libsndfile, which cannot propagate exceptions: the first one is stored in
    ``error``, and the stream appears to end.
    """

    def __init__(self, stream: BinaryIO):
        self.stream = stream
        self.error: SasvError | None = None

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer. Return 0 at the end of the stream, and after an error."""
        if self.error is not None:
            return 0
        try:
            return self.stream.readinto(buffer)  # type: ignore[attr-defined,no-any-return]
        except SasvError as error:
            self.error = error
            return 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position, in bytes."""
        return self.stream.seek(offset, whence)

    def tell(self) -> int:
        """Return the current position, in bytes."""
        return self.stream.tell()

    def write(self, data: bytes) -> int:
        """Refuse to write; libsndfile requires that the method exists."""
        raise io.UnsupportedOperation("write")

    def check(self) -> None:
        """Raise the exception that reading raised, if any."""
        if self.error is not None:
            raise self.error
