"""The interface of databases for a store: queries, exclusive transactions, and consistent reads."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

Row = tuple[Any, ...]

BUSY_SECONDS = 30.0
"""Seconds for which a writer waits for another one."""


class VectorTable(Protocol):
    """Directions of voiceprints that the database itself can search. They are not encrypted."""

    def put(self, identifier: str, direction: np.ndarray) -> None:
        """Store the direction of a voiceprint, replacing an earlier one. It is deleted together
        with the voiceprint.
        """

    def get(self, identifier: str) -> np.ndarray | None:
        """Return the direction of a voiceprint, or None if there is none."""

    def nearest(
        self, direction: np.ndarray, tenant: str, model: str, top: int, now: float
    ) -> list[str]:
        """Return the voiceprints with the highest cosines that have not expired, the highest
        first.
        """


class Database(ABC):
    """A connection that is shared by the threads of a process.

    Queries use only what SQLite and PostgreSQL have in common, with ``?`` for values.

    Attributes:
        name: name of the database for messages, without a password.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = threading.RLock()
        self._inside = False
        self._durable = True

    @abstractmethod
    def prepare(self, tables: str, searchable: bool) -> None:
        """Create the tables inside a transaction, and the table of directions if requested.

        Args:
            tables: statements, with the types {number}, {real}, and {blob}.
            searchable: whether the database itself must be able to search directions.
        """

    @abstractmethod
    def empty(self) -> bool:
        """Whether there are no tables yet."""

    @abstractmethod
    def vector_table(self) -> VectorTable:
        """Return the table of directions that ``prepare`` created."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection."""

    def execute(self, query: str, values: Sequence[Any] = ()) -> list[Row]:
        """Execute a statement; return its rows.

        Raises:
            StorageError: the database cannot be reached, or is busy.
            SasvError: the database cannot execute the statement.
        """
        with self._lock:
            return self._execute(query, values)

    @contextmanager
    def transaction(self, durable: bool = True) -> Iterator[None]:
        """Make all changes in the block or none, with no other writer in between. Nested
        transactions are part of the outer one.

        Args:
            durable: whether the changes are on the disk when the block ends. Otherwise they outlive
                the process, but may be lost, all of them, if the whole machine stops before the
                next durable change. Only for what nobody relies on after such a stop.
        """

        def begin() -> None:
            self._begin_writing(durable)
            self._durable = durable

        with self._lock:
            if durable and not self._durable:
                raise RuntimeError("a durable change cannot be a part of one that is not")
            with self._within(begin):
                yield

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Make all reads in the block see the same state."""
        with self._within(self._begin_reading):
            yield

    @contextmanager
    def _within(self, begin: Any) -> Iterator[None]:
        with self._lock:
            if self._inside:
                yield
                return
            begin()
            self._inside = True
            try:
                yield
                self._commit()
            except BaseException:
                self._rollback()
                raise
            finally:
                self._inside = False
                self._durable = True

    @abstractmethod
    def _execute(self, query: str, values: Sequence[Any]) -> list[Row]: ...

    @abstractmethod
    def _begin_writing(self, durable: bool) -> None: ...

    @abstractmethod
    def _begin_reading(self) -> None: ...

    @abstractmethod
    def _commit(self) -> None: ...

    @abstractmethod
    def _rollback(self) -> None:
        """Roll back the transaction. It never raises, so that the original error is reported."""
