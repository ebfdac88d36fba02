"""A PostgreSQL database, which several servers can share.

The tables are in a separate schema, ``sasv``, so a database contains one store. Writers take turns
with an advisory lock of the database, so that the audit trail is a single chain, whichever server
appends to it.
"""

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from sasv.core.errors import MissingExtra, SasvError, StorageError
from sasv.store.database import BUSY_SECONDS, Database, Row, VectorTable

SCHEMES = ("postgresql://", "postgres://")
TYPES = {"number": "BIGINT", "real": "DOUBLE PRECISION", "blob": "BYTEA"}
WRITERS = 0x73617376
"""Number of the advisory lock that a writer holds until its transaction ends."""

CONNECT_SECONDS = 10


def is_address(path: object) -> bool:
    """Whether a store is given as the address of a PostgreSQL database, not as a file."""
    return isinstance(path, str) and path.startswith(SCHEMES)


class PostgresDatabase(Database):
    """A connection that is renewed if it was lost between two transactions."""

    def __init__(self, address: str, create: bool) -> None:
        """Connect.

        Args:
            address: ``postgresql://user@host/database``, in the form that libpq accepts; libpq also
                reads PGPASSFILE, PGSERVICE, and its other environment variables.
            create: whether the tables will be created if there are none.

        Raises:
            StorageError: the server does not respond.
            SasvError: the address is malformed, or the database contains no store and ``create`` is
                not set.
        """
        try:
            import psycopg
        except ImportError as error:
            raise MissingExtra("psycopg", "postgres", "a store in PostgreSQL") from error
        self._psycopg = psycopg
        try:
            parts = psycopg.conninfo.conninfo_to_dict(address)
        except psycopg.Error:
            # The message would repeat the address, which may contain a password.
            raise SasvError(
                "the address of the store is malformed; write postgresql://user@host/database"
            ) from None
        super().__init__(f"postgresql://{parts.get('host', '')}/{parts.get('dbname', '')}")
        self._address = address
        self._connection: Any = None
        self._connect()
        if not create and self.empty():
            raise SasvError(f"{self.name}: there is no store; create one with sasv store create")

    def prepare(self, tables: str, searchable: bool) -> None:
        """Create the schema and its tables."""
        self.execute("CREATE SCHEMA IF NOT EXISTS sasv")
        for statement in tables.format(**TYPES).split(";"):
            if statement.strip():
                self.execute(statement)
        if searchable:
            try:
                self.execute("CREATE EXTENSION IF NOT EXISTS vector SCHEMA public")
            except SasvError as error:
                raise SasvError(
                    f"{self.name}: a searchable store needs the extension pgvector; install it on "
                    "the server, and ask the administrator to run CREATE EXTENSION vector "
                    f"({error})"
                ) from error
            self.execute(
                "CREATE TABLE directions ("
                "id TEXT PRIMARY KEY REFERENCES voiceprints ON DELETE CASCADE, "
                "direction vector NOT NULL)"
            )

    def empty(self) -> bool:
        """Whether the database contains no store yet."""
        return self.execute("SELECT to_regclass('sasv.settings')")[0][0] is None

    def vector_table(self) -> VectorTable:
        """Return the table of directions."""
        return PgVectorTable(self)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _connect(self) -> None:
        try:
            self._connection = self._psycopg.connect(
                self._address,
                autocommit=True,
                connect_timeout=CONNECT_SECONDS,
                fallback_application_name="sasv",
            )
            self._connection.execute("SET search_path TO sasv, public")
            self._connection.execute(f"SET lock_timeout TO {round(1000 * BUSY_SECONDS)}")
            # An acknowledged change must be on the disk, whatever the default of the server is.
            (found,) = self._connection.execute("SHOW synchronous_commit").fetchone()
            if found == "off":
                self._connection.execute("SET synchronous_commit TO on")
        except self._psycopg.Error as error:
            raise StorageError(f"{self.name}: cannot be reached ({_line(error)})") from error

    def _execute(self, query: str, values: Sequence[Any]) -> list[Row]:
        try:
            cursor = self._cursor(query.replace("?", "%s"), tuple(values) or None)
            return [] if cursor.description is None else cursor.fetchall()
        except self._psycopg.OperationalError as error:
            raise StorageError(
                f"{self.name}: cannot be used at the moment ({_line(error)})"
            ) from error
        except (self._psycopg.Error, UnicodeEncodeError) as error:
            raise SasvError(f"{self.name}: cannot be used as a store ({_line(error)})") from error

    def _cursor(self, query: str, values: tuple[Any, ...] | None) -> Any:
        """Execute a statement, on a new connection if the old one was lost outside a transaction.
        Outside transactions there are only reads, so nothing can be done twice.
        """
        try:
            return self._connection.execute(query, values)
        except self._psycopg.OperationalError:
            if self._inside or not self._connection.closed:
                raise
        self._connect()
        return self._connection.execute(query, values)

    def _begin_writing(self, durable: bool) -> None:
        self._execute("BEGIN ISOLATION LEVEL READ COMMITTED", ())
        try:
            if not durable:
                self._execute("SET LOCAL synchronous_commit TO off", ())
            self._execute("SELECT pg_advisory_xact_lock(?)", (WRITERS,))
        except BaseException:
            self._rollback()
            raise

    def _begin_reading(self) -> None:
        self._execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", ())

    def _commit(self) -> None:
        self._execute("COMMIT", ())

    def _rollback(self) -> None:
        with contextlib.suppress(self._psycopg.Error):
            self._connection.execute("ROLLBACK")


class PgVectorTable:
    """Directions as vectors of pgvector. All rows of a tenant are compared, without an index,
    because an index of pgvector is approximate and this search is exact.
    """

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    def put(self, identifier: str, direction: np.ndarray) -> None:
        """Store the direction of a voiceprint, replacing an earlier one."""
        self._database.execute(
            "INSERT INTO directions VALUES (?, ?::vector) "
            "ON CONFLICT (id) DO UPDATE SET direction = excluded.direction",
            (identifier, _text(direction)),
        )

    def get(self, identifier: str) -> np.ndarray | None:
        """Return the direction of a voiceprint, or None if there is none."""
        found = self._database.execute(
            "SELECT direction::real[] FROM directions WHERE id = ?", (identifier,)
        )
        return np.array(found[0][0], np.float32) if found else None

    def nearest(
        self, direction: np.ndarray, tenant: str, model: str, top: int, now: float
    ) -> list[str]:
        """Return the voiceprints with the highest cosines that have not expired."""
        rows = self._database.execute(
            "SELECT id FROM directions JOIN voiceprints USING (id) "
            "WHERE tenant = ? AND model = ? AND (expires IS NULL OR expires > ?) "
            "ORDER BY direction <=> ?::vector LIMIT ?",
            (tenant, model, now, _text(direction), top),
        )
        return [identifier for (identifier,) in rows]


def _text(direction: np.ndarray) -> str:
    return "[" + ",".join(repr(float(value)) for value in direction) + "]"


def _line(error: BaseException) -> str:
    """Return the first line of an error, because the others quote the statement."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
