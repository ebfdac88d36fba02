"""An SQLite file, which any number of processes on one machine can share."""

import contextlib
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sasv.core.errors import SasvError, StorageError
from sasv.store.database import BUSY_SECONDS, Database, Row, VectorTable

TYPES = {"number": "INTEGER", "real": "REAL", "blob": "BLOB"}

DURABLE = "synchronous = FULL"
NOT_DURABLE = "synchronous = NORMAL"
"""With the second setting, a change is in the log of the database but not yet on the disk when it
ends. The next one with the first setting writes the whole log.
"""


class SqliteDatabase(Database):
    """A file. Each durable change is on the disk before its call returns."""

    def __init__(self, path: str | os.PathLike[str], create: bool) -> None:
        """Open a file. Raises SasvError if it does not exist and ``create`` is not set, or if it is
        not a database.
        """
        super().__init__(os.fspath(path))
        self._synchronous = True
        if not create and not Path(path).is_file():
            raise SasvError(
                f"{self.name}: there is no such store; check the path, or create one with sasv "
                "store create"
            )
        try:
            os.close(os.open(self.name, os.O_RDWR | os.O_CREAT, 0o600))
            self._connection = sqlite3.connect(
                self.name, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            for setting in ("journal_mode = WAL", DURABLE, "secure_delete = ON"):
                self._connection.execute(f"PRAGMA {setting}")
        except (sqlite3.Error, OSError) as error:
            raise SasvError(f"{self.name}: cannot be used as a store ({error})") from error

    def prepare(self, tables: str, searchable: bool) -> None:
        """Create the tables."""
        if searchable:
            raise SasvError(
                f"{self.name}: a store in a file is searched in memory, so it cannot be made "
                "searchable; only a store in PostgreSQL can"
            )
        for statement in tables.format(**TYPES).split(";"):
            self.execute(statement)

    def empty(self) -> bool:
        """Whether the file has no tables yet."""
        return not self.execute("SELECT 1 FROM sqlite_master")

    def vector_table(self) -> VectorTable:
        """Raise SasvError, because a store in a file has none."""
        raise SasvError(f"{self.name}: a store in a file has no table of directions")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _execute(self, query: str, values: Sequence[Any]) -> list[Row]:
        try:
            return self._connection.execute(query, tuple(values)).fetchall()
        except sqlite3.OperationalError as error:
            raise StorageError(f"{self.name}: cannot be used at the moment ({error})") from error
        except (sqlite3.Error, UnicodeEncodeError) as error:
            raise SasvError(f"{self.name}: cannot be used as a store ({error})") from error

    def _begin_writing(self, durable: bool) -> None:
        try:
            self._synchronise(durable)
            self._execute("BEGIN IMMEDIATE", ())
        except BaseException:
            self._synchronise(True)
            raise

    def _begin_reading(self) -> None:
        self._execute("BEGIN", ())

    def _commit(self) -> None:
        self._execute("COMMIT", ())
        self._synchronise(True)

    def _rollback(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("ROLLBACK")
        with contextlib.suppress(SasvError):
            self._synchronise(True)

    def _synchronise(self, durable: bool) -> None:
        """Set whether changes are on the disk when they end; only outside transactions."""
        if durable != self._synchronous:
            self._execute(f"PRAGMA {DURABLE if durable else NOT_DURABLE}", ())
            self._synchronous = durable
