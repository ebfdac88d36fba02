"""A table of text columns, kept as Arrow columns.

There is no Python object per cell, so that a million rows are read in about two seconds and need
little more memory than the file. Cells are stored as bytes and decoded on access, because a path
may contain arbitrary bytes.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from sasv.core.errors import TableError, listed
from sasv.core.files import (
    atomic_path,
    digest_of_bytes,
    other_than_text,
    read_bytes,
    write_bytes,
    zipped,
)

LONGEST_NAME = 4096
"""Maximum length in bytes of a cell with a name or a number."""

BLOCK_BYTES = 1 << 24
CELL = pa.large_binary()
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
SEPARATORS = r"[\t\r\n]"


class Table:
    """Rows of named text columns.

    Attributes:
        name: file name, for messages.
        columns: column names, in order.
        cells: Arrow table with one chunk of bytes per column.
        lines: line number of each row in its file, counted from 1.
    """

    def __init__(self, name: str, cells: pa.Table, lines: np.ndarray):
        self.name = name
        self.columns: list[str] = cells.column_names
        self.cells = cells
        self.lines = lines

    def __len__(self) -> int:
        return self.cells.num_rows

    @classmethod
    def load(cls, path: str | Path) -> "Table":
        """Read a table with a header line: tab-separated UTF-8 text with any line ends, or Parquet.

        Text may be compressed (``.gz``). Parquet is chosen by the suffix ``.parquet``.
        """
        data = read_bytes(path)
        if os.fspath(path).endswith(".parquet"):
            return cls._from_parquet(data, str(path))
        return cls.parse(data, str(path))

    @classmethod
    def parse(cls, data: bytes, name: str) -> "Table":
        """Parse tab-separated text.

        Args:
            data: UTF-8 bytes, with or without a byte order mark.
            name: file name, for messages.

        Raises:
            TableError: the file is empty or not a table, or a row has more or fewer cells than the
                header.
        """
        data = data.removeprefix(BYTE_ORDER_MARK)
        other = other_than_text(data)
        if other:
            raise TableError(f"{name}: {other}")
        if not data.strip():
            raise TableError(f"{name}: the file is empty, but a table needs a header line")
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = _line_numbers(data)
        first = data.lstrip(b"\r\n").splitlines()[0]
        header = first.decode("utf-8", "replace").split("\t")
        if len(set(header)) < len(header):
            raise TableError(
                f"{name}: a column name appears twice in the header: {listed(header, 20)}"
            )
        parse = pyarrow.csv.ParseOptions(delimiter="\t", quote_char=False)
        convert = pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(header, CELL), strings_can_be_null=False
        )
        read = pyarrow.csv.ReadOptions(
            column_names=header, skip_rows=0, use_threads=False, block_size=BLOCK_BYTES
        )
        try:
            cells = pyarrow.csv.read_csv(pa.BufferReader(data), read, parse, convert)
        except pa.ArrowInvalid as error:
            _check_cells(name, data, lines, len(header))
            raise TableError(f"{name}: this is not tab-separated text, or it is damaged") from error
        return cls(name, cells.slice(1).combine_chunks(), lines[1:])

    @classmethod
    def _from_parquet(cls, data: bytes, name: str) -> "Table":
        try:
            found = pyarrow.parquet.read_table(pa.BufferReader(data))
            columns = [
                _one_chunk(column.cast(pa.large_string()).cast(CELL)) for column in found.columns
            ]
        except pa.ArrowException as error:
            raise TableError(
                f"{name}: not a Parquet table of plain columns ({error}); write it again"
            ) from error
        cells = pa.table([pc.fill_null(column, b"-") for column in columns], found.column_names)
        return cls(name, cells, np.arange(1, len(cells) + 1))

    @classmethod
    def build(cls, columns: Mapping[str, Sequence[object]], name: str = "table") -> "Table":
        """Make a table from sequences of equal length; numbers are written with ``str``.

        Raises:
            TableError: a cell contains a tab or a line end.
            ValueError: the sequences have different lengths.
        """
        texts = {column: [str(value) for value in values] for column, values in columns.items()}
        if len({len(values) for values in texts.values()}) > 1:
            raise ValueError("the columns of a table have different lengths")
        arrays = []
        for column, values in texts.items():
            encoded = [value.encode("utf-8", "surrogateescape") for value in values]
            array = pa.array(encoded, CELL)
            broken = pc.match_substring_regex(array, SEPARATORS)
            if pc.any(broken).as_py():
                cell = values[pc.index(broken, True).as_py()]
                raise TableError(
                    f"{name}: the {column} {cell!r} contains a tab or a line end; rename it"
                )
            arrays.append(array)
        cells = pa.table(arrays, names=list(texts))
        return cls(name, cells, np.arange(2, len(cells) + 2))

    def save(self, path: str | Path) -> None:
        """Write the table atomically, as text, compressed text (suffix ``.gz``), or Parquet (suffix
        ``.parquet``).
        """
        columns = [self.texts(column) for column in self.columns]
        if os.fspath(path).endswith(".parquet"):
            with atomic_path(path) as temporary:
                pyarrow.parquet.write_table(pa.table(columns, names=self.columns), temporary)
            return
        body = "\n".join(["\t".join(self.columns), *map("\t".join, zip(*columns))])
        write_bytes(path, zipped(body.encode("utf-8", "surrogateescape") + b"\n", path))

    def require(self, *columns: str) -> None:
        """Check that the table has some columns.

        Raises:
            TableError: a column is missing.
        """
        missing = [column for column in columns if column not in self.columns]
        if missing:
            raise TableError(
                f"{self.name}: column {listed(missing)} is missing; the header has: "
                f"{listed(self.columns, 20)} (columns are separated by tabs)"
            )

    def line(self, row: int) -> int:
        """Return the line number of a row in the file, counted from 1."""
        return int(self.lines[row])

    def column(self, name: str) -> pa.Array:
        """Return a column as one Arrow array of bytes."""
        return _one_chunk(self.cells.column(name))

    def text(self, column: str, row: int) -> str:
        """Return one cell."""
        return self.cells.column(column)[row].as_py().decode("utf-8", "surrogateescape")

    def texts(self, column: str) -> list[str]:
        """Return a column as Python strings. Bytes that are not UTF-8 become surrogate escapes, as
        in file names.
        """
        array = self.column(column)
        try:
            return array.cast(pa.large_string()).to_pylist()
        except pa.ArrowInvalid:
            return [cell.decode("utf-8", "surrogateescape") for cell in array.to_pylist()]

    def take(self, rows: np.ndarray) -> "Table":
        """Return the rows given by a mask or by indices."""
        rows = np.asarray(rows)
        indices = np.flatnonzero(rows) if rows.dtype == bool else rows
        return Table(self.name, self.cells.take(pa.array(indices)), self.lines[indices])

    def where(self, condition: str) -> "Table":
        """Return the rows that satisfy ``column=value`` or ``column=value1,value2``.

        Several conditions are separated by ``;``, and all of them must be satisfied.

        Raises:
            TableError: a condition is malformed, or no row satisfies it.
        """
        chosen = self
        for part in filter(None, map(str.strip, condition.split(";"))):
            column, _, wanted = part.partition("=")
            if not wanted:
                raise TableError(
                    f"'{part}': write a condition as column=value, for instance split=train"
                )
            chosen.require(column)
            codes, names = chosen.codes(column)
            values = wanted.split(",")
            kept = np.isin(codes, [code for code, name in enumerate(names) if name in values])
            if not kept.any():
                raise TableError(
                    f"{self.name}: no row has {part}; the values of {column} are: "
                    f"{listed(names, 10)}"
                )
            chosen = chosen.take(kept)
        return chosen

    def with_column(self, name: str, values: Sequence[object]) -> "Table":
        """Return the table with a column replaced, or appended if there is none of that name."""
        added = Table.build({name: values}, self.name).cells.column(0)
        if name in self.columns:
            cells = self.cells.set_column(self.columns.index(name), name, added)
        else:
            cells = self.cells.append_column(name, added)
        return Table(self.name, cells, self.lines)

    def empty(self, column: str) -> np.ndarray:
        """Return the rows (indices) whose cell in a column is empty."""
        lengths = pc.binary_length(self.column(column)).to_numpy(zero_copy_only=False)
        return np.flatnonzero(lengths == 0)

    def groups(self, column: str) -> tuple[np.ndarray, np.ndarray]:
        """Return a code for the text of each row, and the first row of each distinct text. Codes
        are in order of first appearance.
        """
        array = self.column(column)
        self._check_lengths(column, array)
        encoded = array.dictionary_encode()
        codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int32)
        first = np.empty(len(encoded.dictionary), np.int64)
        first[codes[::-1]] = np.arange(len(codes))[::-1]
        return codes, first

    def codes(self, column: str) -> tuple[np.ndarray, list[str]]:
        """Return a code for the text of each row, int32 (rows,), and the distinct texts in order of
        first appearance.
        """
        codes, first = self.groups(column)
        return codes, self.take(first).texts(column)

    def numbers(self, column: str) -> np.ndarray:
        """Return a column as float64, (rows,).

        Raises:
            TableError: a cell is not a finite number; the message names the first one.
        """
        array = self.column(column)
        self._check_lengths(column, array)
        try:
            parsed = pc.utf8_trim_whitespace(array.cast(pa.large_string())).cast(pa.float64())
            values = parsed.to_numpy(zero_copy_only=False)
        except (
            pa.ArrowInvalid
        ):  # Python accepts a few more spellings, and finds the first invalid cell
            values = np.array([self._number(column, row) for row in range(len(self))], np.float64)
        if not np.isfinite(values).all():
            row = int(np.argmin(np.isfinite(values)))
            raise self.bad_cell(column, row, "is not a finite number")
        return values

    def _number(self, column: str, row: int) -> float:
        text = self.text(column, row)
        try:
            if "_" in text or not text.isascii():  # Python would accept 1_000
                raise ValueError(text)
            return float(text)
        except ValueError:
            raise self.bad_cell(column, row, "is not a number") from None

    def _check_lengths(self, column: str, array: pa.Array) -> None:
        longest = pc.max(pc.binary_length(array)).as_py() or 0
        if longest > LONGEST_NAME:
            row = pc.index(pc.equal(pc.binary_length(array), longest), True).as_py()
            raise TableError(
                f"{self.name}, line {self.line(row)}: a {column} has {longest} bytes; names and "
                f"numbers may have at most {LONGEST_NAME}"
            )

    def bad_cell(self, column: str, row: int, problem: str) -> TableError:
        """Return the error for an invalid cell."""
        return TableError(
            f"{self.name}, line {self.line(row)}: {column} '{self.text(column, row)}' {problem}"
        )


def text_digest(path: str | Path) -> str:
    """Return the hexadecimal SHA-256 of the text of a table, without a byte order mark and with a
    final line end.
    """
    data = read_bytes(path).removeprefix(BYTE_ORDER_MARK)
    return digest_of_bytes(data if data.endswith(b"\n") else data + b"\n")


def _check_cells(name: str, data: bytes, lines: np.ndarray, wanted: int) -> None:
    """Raise TableError for the first row that has more or fewer cells than the header."""
    rows = filter(None, data.split(b"\n"))
    for line, row in zip(lines.tolist(), rows):
        cells = row.count(b"\t") + 1
        if cells != wanted:
            raise TableError(
                f"{name}, line {line}: the row has {cells} cells, but the header has {wanted}; "
                "cells are separated by single tabs"
            )


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _line_numbers(data: bytes) -> np.ndarray:
    """Return the line number of every line that is not empty, counted from 1."""
    stops = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))
    if not data.endswith(b"\n"):
        stops = np.append(stops, len(data))
    lengths = np.diff(stops, prepend=-1) - 1
    return np.flatnonzero(lengths > 0) + 1
