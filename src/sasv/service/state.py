"""What the service keeps beside voiceprints: API keys, speakers, and answers to idempotent
requests. The tables are in the file of the store.
"""

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sasv.core.errors import SasvError
from sasv.service.keys import ApiKey

TABLES = """
CREATE TABLE IF NOT EXISTS service_keys (
    id TEXT PRIMARY KEY, digest TEXT NOT NULL, name TEXT NOT NULL, tenant TEXT NOT NULL,
    scopes TEXT NOT NULL, created REAL NOT NULL, revoked REAL
);
CREATE TABLE IF NOT EXISTS service_speakers (
    tenant TEXT NOT NULL, speaker TEXT NOT NULL, created REAL NOT NULL, consent TEXT NOT NULL,
    expires REAL, PRIMARY KEY (tenant, speaker)
);
CREATE TABLE IF NOT EXISTS service_answers (
    api_key TEXT NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL, created REAL NOT NULL,
    tenant TEXT NOT NULL, speaker TEXT NOT NULL, status INTEGER, body TEXT,
    PRIMARY KEY (api_key, name)
);
"""

ABANDONED_SECONDS = 120.0
"""An answer that is not there after so long will not come: its server was killed."""

BUSY_SECONDS = 30.0


@dataclass(frozen=True)
class Speaker:
    """A speaker, enrolled or not.

    Attributes:
        speaker: identifier.
        created: seconds since 1970.
        consent: note on the consent of the speaker.
        expires: when voiceprints are deleted; None if they are not.
    """

    speaker: str
    created: float
    consent: str
    expires: float | None


@dataclass(frozen=True)
class Answer:
    """What is known of a request with an idempotency key.

    Attributes:
        digest: of the request.
        status: of the response; None while it is computed.
        body: of the response, plain values.
    """

    digest: str
    status: int | None
    body: Any


class ServiceState:
    """The tables of the service in one file, which several processes may use at once."""

    def __init__(
        self, path: str | os.PathLike[str], clock: Callable[[], float] = time.time
    ) -> None:
        """Open a file. SasvError if it cannot be used.

        Args:
            path: the file of a store.
            clock: gives the time, in seconds since 1970.
        """
        self.path = os.fspath(path)
        self.clock = clock
        self._lock = threading.RLock()
        try:
            self._connection = sqlite3.connect(
                self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            for setting in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON"):
                self._connection.execute(f"PRAGMA {setting}")
            for statement in TABLES.split(";"):
                self._connection.execute(statement)
        except sqlite3.Error as error:
            raise SasvError(f"{self.path}: cannot be used by the service ({error})") from error

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def check(self) -> None:
        """Raise an error if the file cannot be read."""
        self._execute("SELECT 1 FROM service_keys LIMIT 1")

    def add_key(self, key: ApiKey) -> None:
        """Keep an API key."""
        self._execute(
            "INSERT INTO service_keys VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                key.id,
                key.digest,
                key.name,
                key.tenant,
                ",".join(key.scopes),
                key.created,
                key.revoked,
            ),
        )

    def api_keys(self) -> list[ApiKey]:
        """Return all API keys, the oldest first."""
        return [_key(row) for row in self._execute("SELECT * FROM service_keys ORDER BY created")]

    def key(self, identifier: str) -> ApiKey | None:
        """Return an API key by its identifier; None if there is none."""
        rows = self._execute("SELECT * FROM service_keys WHERE id = ?", (identifier,))
        return _key(rows[0]) if rows else None

    def revoke(self, identifier: str) -> ApiKey:
        """Revoke an API key, from now on. SasvError if there is none."""
        self._execute(
            "UPDATE service_keys SET revoked = ? WHERE id = ? AND revoked IS NULL",
            (self.clock(), identifier),
        )
        found = self.key(identifier)
        if found is None:
            raise SasvError(f"{self.path}: no API key {identifier}; sasv keys list names them")
        return found

    def add_speaker(self, tenant: str, speaker: str, consent: str, expires: float | None) -> bool:
        """Keep a speaker; False if there is one of that name."""
        found = self._execute(
            "INSERT INTO service_speakers VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT DO NOTHING RETURNING 1",
            (tenant, speaker, self.clock(), consent, expires),
        )
        return bool(found)

    def speaker(self, tenant: str, speaker: str) -> Speaker | None:
        """Return a speaker; None if there is none."""
        rows = self._execute(
            "SELECT speaker, created, consent, expires FROM service_speakers "
            "WHERE tenant = ? AND speaker = ?",
            (tenant, speaker),
        )
        return Speaker(*rows[0]) if rows else None

    def speakers(self, tenant: str) -> list[str]:
        """Return the identifiers of all speakers of a tenant."""
        rows = self._execute("SELECT speaker FROM service_speakers WHERE tenant = ?", (tenant,))
        return [speaker for (speaker,) in rows]

    def forget_speaker(self, tenant: str, speaker: str) -> None:
        """Delete a speaker, and the answers that were about this speaker."""
        with self._transaction():
            for table in ("service_speakers", "service_answers"):
                self._execute(
                    f"DELETE FROM {table} WHERE tenant = ? AND speaker = ?", (tenant, speaker)
                )

    def claim(
        self, key: str, name: str, digest: str, tenant: str, speaker: str, lifetime: float
    ) -> Answer | None:
        """Say that a request is going to be answered; return what is known if it was made before.

        Args:
            key: identifier of the API key.
            name: the idempotency key.
            digest: of the request.
            tenant: of the API key.
            speaker: whom the request is about; may be empty.
            lifetime: seconds for which answers are kept.
        """
        now = self.clock()
        with self._transaction():
            self._execute("DELETE FROM service_answers WHERE created < ?", (now - lifetime,))
            self._execute(
                "DELETE FROM service_answers WHERE api_key = ? AND name = ? AND status IS NULL "
                "AND created < ?",
                (key, name, now - ABANDONED_SECONDS),
            )
            rows = self._execute(
                "SELECT digest, status, body FROM service_answers WHERE api_key = ? AND name = ?",
                (key, name),
            )
            if rows:
                found, status, body = rows[0]
                return Answer(found, status, None if body is None else json.loads(body))
            self._execute(
                "INSERT INTO service_answers VALUES (?, ?, ?, ?, ?, ?, NULL, NULL)",
                (key, name, digest, now, tenant, speaker),
            )
        return None

    def keep_answer(self, key: str, name: str, status: int, body: Any, most: int) -> None:
        """Keep the answer to a request that was claimed; the oldest ones beyond ``most`` go."""
        with self._transaction():
            self._execute(
                "UPDATE service_answers SET status = ?, body = ? WHERE api_key = ? AND name = ?",
                (status, json.dumps(body), key, name),
            )
            self._execute(
                "DELETE FROM service_answers WHERE api_key = ? AND name IN (SELECT name FROM "
                "service_answers WHERE api_key = ? AND status IS NOT NULL "
                "ORDER BY created DESC, name LIMIT -1 OFFSET ?)",
                (key, key, most),
            )

    def release(self, key: str, name: str) -> None:
        """Give up a request that was claimed, so that it can be made again."""
        self._execute(
            "DELETE FROM service_answers WHERE api_key = ? AND name = ? AND status IS NULL",
            (key, name),
        )

    def _execute(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._connection.execute(query, tuple(values)).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")


def _key(row: tuple[Any, ...]) -> ApiKey:
    identifier, digest, name, tenant, scopes, created, revoked = row
    return ApiKey(identifier, digest, name, tenant, tuple(scopes.split(",")), created, revoked)
