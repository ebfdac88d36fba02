"""What a service keeps about speakers besides voiceprints: their records, and responses to requests
that may be repeated. These tables belong to the store, so that whatever deletes or exports a
speaker, a command or the service, reaches them.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from sasv.store.database import Database

TABLES = """
CREATE TABLE IF NOT EXISTS service_speakers (
    tenant TEXT NOT NULL, speaker TEXT NOT NULL, created {real} NOT NULL, consent TEXT NOT NULL,
    expires {real}, PRIMARY KEY (tenant, speaker)
);
CREATE TABLE IF NOT EXISTS service_answers (
    api_key TEXT NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL, created {real} NOT NULL,
    tenant TEXT NOT NULL, speaker TEXT NOT NULL, status {number}, body TEXT,
    PRIMARY KEY (api_key, name)
);
CREATE INDEX IF NOT EXISTS service_answers_created ON service_answers (created);
CREATE INDEX IF NOT EXISTS service_answers_kept ON service_answers (api_key, created)
    WHERE status IS NOT NULL;
DROP INDEX IF EXISTS service_answers_of_key
"""


@dataclass(frozen=True)
class Speaker:
    """The record of a speaker, enrolled or not.

    Attributes:
        speaker: identifier.
        created: seconds since 1970.
        consent: note on the consent of the speaker.
        expires: time at which the speaker is deleted; None if the record does not expire.
    """

    speaker: str
    created: float
    consent: str
    expires: float | None


class SpeakerRecords:
    """The tables of one store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def prepare(self) -> None:
        """Create the tables if there are none, inside a transaction."""
        self._database.prepare(TABLES, False)

    def add(self, tenant: str, speaker: str, now: float, consent: str, expires: Any) -> bool:
        """Store a speaker, in place of one who has expired. Return False if there is one with this
        name.
        """
        with self._database.transaction():
            known = self.find(tenant, speaker)
            if known is not None and known.expires is not None and known.expires <= now:
                self.forget(tenant, speaker)
            found = self._database.execute(
                "INSERT INTO service_speakers VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT DO NOTHING RETURNING 1",
                (tenant, speaker, now, consent, expires),
            )
        return bool(found)

    def find(self, tenant: str, speaker: str, now: float | None = None) -> Speaker | None:
        """Return a speaker, or None if there is none.

        Args:
            tenant: to whom the speaker belongs.
            speaker: identifier.
            now: time at which the speaker must not have expired; by default, one who has is
                returned as well.
        """
        rows = self._database.execute(
            "SELECT speaker, created, consent, expires FROM service_speakers "
            "WHERE tenant = ? AND speaker = ?",
            (tenant, speaker),
        )
        found = Speaker(*rows[0]) if rows else None
        if found is None or now is None or found.expires is None or found.expires > now:
            return found
        return None

    def names(self, tenant: str, now: float) -> list[str]:
        """Return the identifiers of all speakers of a tenant who have not expired."""
        rows = self._database.execute(
            "SELECT speaker FROM service_speakers WHERE tenant = ? "
            "AND (expires IS NULL OR expires > ?)",
            (tenant, now),
        )
        return [speaker for (speaker,) in rows]

    def expired(self, now: float) -> list[tuple[str, str]]:
        """Return the speakers who have expired: (speaker, tenant)."""
        rows = self._database.execute(
            "SELECT speaker, tenant FROM service_speakers WHERE expires <= ?", (now,)
        )
        return [(speaker, tenant) for speaker, tenant in rows]

    def forget(self, tenant: str, speaker: str) -> None:
        """Delete a speaker, and all stored responses that name this speaker."""
        with self._database.transaction():
            self._database.execute(
                "DELETE FROM service_speakers WHERE tenant = ? AND speaker = ?", (tenant, speaker)
            )
            self.forget_responses(tenant, speaker)

    def forget_responses(self, tenant: str, speaker: str) -> None:
        """Delete the stored responses that name a speaker, for instance as a candidate."""
        with self._database.transaction():
            for key, name, *_ in self._responses(tenant, speaker):
                self._database.execute(
                    "DELETE FROM service_answers WHERE api_key = ? AND name = ?", (key, name)
                )

    def held(self, tenant: str, speaker: str) -> dict[str, Any]:
        """Return everything in the tables that is about a speaker, as plain values for JSON: the
        record, and the responses. A response that names other speakers, too, is given without its
        body.
        """
        known = self.find(tenant, speaker)
        record = None
        if known is not None:
            record = {
                "created": known.created,
                "consent": known.consent,
                "expires": known.expires,
            }
        responses = [
            {"created": created, "status": status}
            | ({"body": json.loads(body)} if about == speaker and body else {})
            for _, _, about, created, status, body in self._responses(tenant, speaker)
        ]
        return {"service": record, "responses": responses}

    def _responses(self, tenant: str, speaker: str) -> list[tuple[Any, ...]]:
        """Return the responses that name a speaker."""
        quoted = json.dumps(speaker)[1:-1]
        pattern = "".join(f"!{one}" if one in "!%_" else one for one in quoted)
        rows = self._database.execute(
            "SELECT api_key, name, speaker, created, status, body FROM service_answers "
            "WHERE tenant = ? AND (speaker = ? OR body LIKE ? ESCAPE '!') ORDER BY created",
            (tenant, speaker, f"%{pattern}%"),
        )
        # LIKE also finds longer names, and in SQLite those with other capital letters.
        whole = re.compile(rf"(?<![\w@-]){re.escape(quoted)}(?![\w@-])")
        return [row for row in rows if row[2] == speaker or whole.search(row[5])]
