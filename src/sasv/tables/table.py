"""A TSV table kept as one byte buffer and the positions of its cells.

No Python object exists per cell, so a million rows parse in about a second, take little more memory than the
file, and stay shared with forked loader workers (nothing is reference-counted, so no page is ever copied).
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from sasv.core.errors import TableError, some
from sasv.core.files import read_bytes, write_bytes

CHUNK = 1 << 16
LONGEST_NAME = 4096


class Table:
    """Rows of named text columns.

    Attributes:
        name: file name, for messages.
        columns: column names, in order.
        buffer: uint8 array that holds every cell's UTF-8 bytes.
        starts, ends: integer arrays of shape (columns, rows): where each cell lies in the buffer.
        lines: line number of each row in the file it came from.
    """

    def __init__(
        self,
        name: str,
        columns: Sequence[str],
        buffer: np.ndarray,
        starts: np.ndarray,
        ends: np.ndarray,
        lines: np.ndarray,
    ):
        self.name, self.columns, self.buffer = name, list(columns), buffer
        self.starts, self.ends, self.lines = starts, ends, lines

    def __len__(self) -> int:
        return self.starts.shape[1]

    @classmethod
    def load(cls, path: str | Path) -> "Table":
        """Read a TSV file with a header line (any line ends, UTF-8, gzip by suffix ``.gz``)."""
        return cls.parse(read_bytes(path), str(path))

    @classmethod
    def parse(cls, data: bytes, name: str) -> "Table":
        """Parse the bytes of a TSV file. TableError where a row has more or fewer cells than the header."""
        if data.startswith(b"\xef\xbb\xbf"):
            data = data[3:]
        if data.startswith(b"PK\x03\x04"):
            raise TableError(f"{name}: a spreadsheet, not a table; save it as tab-separated text")
        if not data.strip():
            raise TableError(f"{name}: empty file; a table needs a header line")
        if not data.endswith(b"\n"):
            data += b"\n"
        buffer = np.frombuffer(data, dtype=np.uint8)
        position = np.uint32 if len(buffer) < 1 << 32 else np.int64
        stops = np.flatnonzero(buffer == 10)
        begins = np.concatenate(([0], stops[:-1] + 1))
        stops = stops - ((buffer[np.maximum(stops - 1, 0)] == 13) & (stops > begins))
        lines = np.flatnonzero(stops > begins)
        begins, stops = begins[lines], stops[lines]
        tabs = np.flatnonzero(buffer == 9)
        counts = np.searchsorted(tabs, stops) - np.searchsorted(tabs, begins)
        header = data[begins[0] : stops[0]].decode("utf-8", "replace").split("\t")
        if len(set(header)) < len(header):
            raise TableError(f"{name}: a column name stands twice in the header: {some(header, 20)}")
        wrong = np.flatnonzero(counts != len(header) - 1)
        if len(wrong):
            row = wrong[0]
            raise TableError(
                f"{name}, line {lines[row] + 1}: {counts[row] + 1} cells, the header has {len(header)}; "
                "cells are separated by single tabs"
            )
        inner = tabs.reshape(len(lines), len(header) - 1)[1:].T
        starts = np.concatenate((begins[None, 1:], inner + 1)).astype(position)
        ends = np.concatenate((inner, stops[None, 1:])).astype(position)
        return cls(name, header, buffer, starts, ends, lines[1:] + 1)

    @classmethod
    def build(cls, columns: Mapping[str, Sequence[object]], name: str = "table") -> "Table":
        """Make a table from sequences of equal length; numbers are written with ``str``."""
        rows = zip(*(map(str, values) for values in columns.values()), strict=True)
        text = "\n".join(["\t".join(columns), *map("\t".join, rows)])
        return cls.parse(text.encode(), name)

    def save(self, path: str | Path) -> None:
        """Write the table as TSV, atomically."""
        cells = [self.texts(column) for column in self.columns]
        body = "\n".join(["\t".join(self.columns), *map("\t".join, zip(*cells))])
        write_bytes(path, body.encode() + b"\n")

    def require(self, *columns: str) -> None:
        """TableError where a column is missing."""
        missing = [column for column in columns if column not in self.columns]
        if missing:
            raise TableError(
                f"{self.name}: column {some(missing)} is missing; the header has: {some(self.columns, 20)} "
                "(columns are separated by tabs)"
            )

    def line(self, row: int) -> int:
        """Line of a row in the file, counted from 1."""
        return int(self.lines[row])

    def text(self, column: str, row: int) -> str:
        """Return one cell."""
        at = self._at[column]
        return self.buffer[self.starts[at, row] : self.ends[at, row]].tobytes().decode("utf-8", "replace")

    def texts(self, column: str) -> list[str]:
        """Return a column as Python strings."""
        at = self._at[column]
        whole = self.buffer.tobytes()
        bounds = zip(self.starts[at].tolist(), self.ends[at].tolist())
        return [whole[start:end].decode("utf-8", "replace") for start, end in bounds]

    def take(self, rows: np.ndarray) -> "Table":
        """Return the rows given by a mask or indices; the buffer is shared."""
        return Table(self.name, self.columns, self.buffer, self.starts[:, rows], self.ends[:, rows], self.lines[rows])

    def bytes_matrix(self, column: str) -> np.ndarray:
        """Return a column as zero-padded bytes, uint8 of shape (rows, width), width a multiple of 8."""
        at = self._at[column]
        starts = self.starts[at].astype(np.int64)
        lengths = self.ends[at].astype(np.int64) - starts
        longest = int(lengths.max(initial=0))
        if longest > LONGEST_NAME:
            row = int(lengths.argmax())
            raise TableError(f"{self.name}, line {self.line(row)}: a {column} of {longest} bytes; names must be short")
        width = -(-max(longest, 1) // 8) * 8
        matrix = np.zeros((len(starts), width), np.uint8)
        offsets = np.arange(width)
        for low in range(0, len(starts), CHUNK):
            rows = slice(low, low + CHUNK)
            at_bytes = np.minimum(starts[rows, None] + offsets, len(self.buffer) - 1)
            matrix[rows] = np.where(offsets < lengths[rows, None], self.buffer[at_bytes], 0)
        return matrix

    def groups(self, column: str) -> tuple[np.ndarray, np.ndarray]:
        """Return (code of each row, first row of each distinct text), codes in order of first appearance."""
        words = self.bytes_matrix(column).view(np.uint64)
        mixed = np.zeros(len(words), np.uint64)
        for word in words.T:
            mixed = (mixed ^ word) * np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> np.uint64(29)
        _, first, inverse = np.unique(mixed, return_index=True, return_inverse=True)
        if not np.array_equal(words[first[inverse]], words):  # a hash collision: fall back on sorting the texts
            _, first, inverse = np.unique(words, axis=0, return_index=True, return_inverse=True)
        order = np.argsort(first)
        rank = np.empty(len(order), np.int32)
        rank[order] = np.arange(len(order), dtype=np.int32)
        return rank[inverse.ravel()], first[order]

    def codes(self, column: str) -> tuple[np.ndarray, list[str]]:
        """Return (code of each row as int32, the distinct texts in order of first appearance)."""
        codes, first = self.groups(column)
        return codes, self.take(first).texts(column)

    def numbers(self, column: str) -> np.ndarray:
        """Return a column as float64. TableError names the first cell that is not a finite number."""
        matrix = self.bytes_matrix(column)
        cells = matrix.view(f"S{matrix.shape[1]}").ravel()
        try:
            values = cells.astype(np.float64)
        except ValueError as error:
            row = next(row for row in range(len(cells)) if not _is_number(cells[row]))
            raise self.bad_cell(column, row, "is not a number") from error
        if not np.isfinite(values).all():
            raise self.bad_cell(column, int(np.argmin(np.isfinite(values))), "is not a finite number")
        return values

    def bad_cell(self, column: str, row: int, problem: str) -> TableError:
        """Make the error for a wrong cell."""
        return TableError(f"{self.name}, line {self.line(row)}: {column} '{self.text(column, row)}' {problem}")

    @cached_property
    def _at(self) -> dict[str, int]:
        return {column: index for index, column in enumerate(self.columns)}


def _is_number(cell: bytes) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
