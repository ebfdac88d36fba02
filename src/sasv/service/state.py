"""The data of the service other than voiceprints: API keys, speakers, and responses to idempotent
requests. They are in the database of the store, to which the tables of the last two belong
(``sasv.store.speakers``).
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sasv.core.errors import SasvError
from sasv.service.keys import ApiKey
from sasv.store.database import Database
from sasv.store.speakers import Speaker, SpeakerRecords

TABLES = """
CREATE TABLE IF NOT EXISTS service_keys (
    id TEXT PRIMARY KEY, digest TEXT NOT NULL, name TEXT NOT NULL, tenant TEXT NOT NULL,
    scopes TEXT NOT NULL, created {real} NOT NULL, revoked {real}
)
"""

ABANDONED_SECONDS = 120.0
"""Seconds after which a missing response will not arrive any more, because its server was killed.
"""

SWEEP_SECONDS = 60.0
"""Seconds between two deletions of the responses that are too old to be returned."""

ROOM = 100
"""The stored responses of an API key are counted after every hundredth part of their maximum
number, and that many fewer are kept then.
"""


@dataclass(frozen=True)
class Answer:
    """The record of a request with an idempotency key.

    Attributes:
        digest: digest of the request.
        status: status of the response; None while it is computed.
        body: body of the response, as plain values.
    """

    digest: str
    status: int | None
    body: Any


class ServiceState:
    """The tables of the service."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        """Create the tables if there are none.

        Args:
            database: database of the store, which closes it (see VoiceprintStore.database).
            clock: returns the time, in seconds since 1970.
        """
        self.database = database
        self.clock = clock
        self._records = SpeakerRecords(database)
        self._room: dict[str, int] = {}
        self._sweep_at = 0.0
        with database.transaction():
            database.prepare(TABLES, False)

    def add_key(self, key: ApiKey) -> None:
        """Store an API key."""
        self.database.execute(
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
        return [
            _key(row)
            for row in self.database.execute("SELECT * FROM service_keys ORDER BY created")
        ]

    def key(self, identifier: str) -> ApiKey | None:
        """Return the API key with an identifier, or None if there is none."""
        rows = self.database.execute("SELECT * FROM service_keys WHERE id = ?", (identifier,))
        return _key(rows[0]) if rows else None

    def revoke(self, identifier: str) -> ApiKey:
        """Revoke an API key. Raises SasvError if there is none."""
        self.database.execute(
            "UPDATE service_keys SET revoked = ? WHERE id = ? AND revoked IS NULL",
            (self.clock(), identifier),
        )
        found = self.key(identifier)
        if found is None:
            raise SasvError(
                f"{self.database.name}: there is no API key {identifier}; sasv keys list shows them"
            )
        return found

    def add_speaker(self, tenant: str, speaker: str, consent: str, expires: float | None) -> bool:
        """Store a speaker. Return False if one with this name exists already."""
        return self._records.add(tenant, speaker, self.clock(), consent, expires)

    def speaker(self, tenant: str, speaker: str) -> Speaker | None:
        """Return a speaker who has not expired, or None if there is none."""
        return self._records.find(tenant, speaker, self.clock())

    def speakers(self, tenant: str) -> list[str]:
        """Return the identifiers of all speakers of a tenant who have not expired."""
        return self._records.names(tenant, self.clock())

    def claim(
        self, key: str, name: str, digest: str, tenant: str, speaker: str, lifetime: float
    ) -> Answer | None:
        """Claim a request, which is about to be answered; return its record if it was made before.

        Args:
            key: identifier of the API key.
            name: the idempotency key.
            digest: digest of the request.
            tenant: tenant of the API key.
            speaker: the speaker to whom the request refers; may be empty.
            lifetime: seconds for which responses are stored.
        """
        now = self.clock()
        # A client whose request is lost together with its claim has no response yet, and repeats
        # it. So this does not have to be on the disk, which would take as long as all else.
        with self.database.transaction(durable=False):
            if now >= self._sweep_at:
                self.database.execute(
                    "DELETE FROM service_answers WHERE created < ?", (now - lifetime,)
                )
                self._sweep_at = now + SWEEP_SECONDS
            if self._claimed(key, name, digest, now, tenant, speaker):
                return None
            ((found, made, status, body),) = self.database.execute(
                "SELECT digest, created, status, body FROM service_answers "
                "WHERE api_key = ? AND name = ?",
                (key, name),
            )
            if made < now - (ABANDONED_SECONDS if status is None else lifetime):
                self.database.execute(
                    "DELETE FROM service_answers WHERE api_key = ? AND name = ?", (key, name)
                )
                self._claimed(key, name, digest, now, tenant, speaker)
                return None
        return Answer(found, status, None if body is None else json.loads(body))

    def _claimed(
        self, key: str, name: str, digest: str, now: float, tenant: str, speaker: str
    ) -> bool:
        """Store a claim. Return False if the request was made before."""
        found = self.database.execute(
            "INSERT INTO service_answers VALUES (?, ?, ?, ?, ?, ?, NULL, NULL) "
            "ON CONFLICT DO NOTHING RETURNING 1",
            (key, name, digest, now, tenant, speaker),
        )
        return bool(found)

    def keep_answer(self, key: str, name: str, status: int, body: Any, most: int) -> None:
        """Store the response to a claimed request. There are never more than ``most`` for a key,
        unless several servers share the store: then up to a hundredth more for each further one.
        """
        with self.database.transaction():
            self.database.execute(
                "UPDATE service_answers SET status = ?, body = ? WHERE api_key = ? AND name = ?",
                (status, json.dumps(body), key, name),
            )
            # Counting thousands of responses takes time, so it is not done for each of them.
            room = self._room.get(key, 0)
            if not room:
                room = most // ROOM
                self._delete_oldest(key, most - room)
            else:
                room -= 1
            self._room[key] = room

    def _delete_oldest(self, key: str, most: int) -> None:
        """Delete all stored responses of an API key but the newest ones."""
        rows = self.database.execute(
            "SELECT created FROM service_answers WHERE api_key = ? AND status IS NOT NULL "
            "ORDER BY created DESC LIMIT 1 OFFSET ?",
            (key, most),
        )
        if rows:
            self.database.execute(
                "DELETE FROM service_answers WHERE api_key = ? AND status IS NOT NULL "
                "AND created <= ?",
                (key, rows[0][0]),
            )

    def release(self, key: str, name: str) -> None:
        """Release a claimed request, so that it can be made again."""
        self.database.execute(
            "DELETE FROM service_answers WHERE api_key = ? AND name = ? AND status IS NULL",
            (key, name),
        )


def _key(row: tuple[Any, ...]) -> ApiKey:
    identifier, digest, name, tenant, scopes, created, revoked = row
    return ApiKey(identifier, digest, name, tenant, tuple(scopes.split(",")), created, revoked)
