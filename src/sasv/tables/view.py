"""The base class of validated views of a table, and the checks that views share."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from sasv.core.errors import TableError
from sasv.tables.labels import NONE
from sasv.tables.table import Table


class TableView:
    """A validated view of a table."""

    def __init__(self, table: Table):
        self.table = table

    def __len__(self) -> int:
        return len(self.table)

    def save(self, path: str | Path) -> None:
        """Write the table atomically as TSV."""
        self.table.save(path)

    @cached_property
    def attacks(self) -> tuple[np.ndarray, list[str]]:
        """Index of the attack of each row, (rows,), and the names of the attacks; all are NONE if
        the table has no such column.
        """
        if "attack" not in self.table.columns:
            return np.zeros(len(self), np.int32), [NONE]
        return self.table.codes("attack")

    @property
    def attack_texts(self) -> list[str]:
        """Return the attack of each row."""
        codes, names = self.attacks
        return [names[code] for code in codes]


def check_unique(table: Table, column: str) -> None:
    """Raise TableError for the first cell of a column that is empty or appears twice."""
    codes, first = table.groups(column)
    if len(first) < len(codes):
        row = int(np.setdiff1d(np.arange(len(codes)), first)[0])
        before = int(first[codes[row]])
        raise table.bad_cell(
            column, row, f"appears twice (first in line {table.line(before)}); names must be unique"
        )
    check_filled(table, column)


def check_filled(table: Table, *columns: str) -> None:
    """Raise TableError for the first empty cell of the columns."""
    for column in columns:
        empty = table.empty(column)
        if len(empty):
            raise TableError(
                f"{table.name}, line {table.line(int(empty[0]))}: the {column} is empty; fill it in"
            )


def check_known(table: Table, column: str, wanted: Sequence[str]) -> None:
    """Raise TableError for the first cell of a column that is not one of the allowed values."""
    codes, names = table.codes(column)
    for code, name in enumerate(names):
        if name not in wanted:
            row = int(np.flatnonzero(codes == code)[0])
            raise table.bad_cell(column, row, f"is unknown; use one of: {', '.join(wanted)}")
