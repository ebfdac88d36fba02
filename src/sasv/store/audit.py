"""The audit trail: a chain of entries to which a store appends, and which contains no names."""

import json
from typing import Any

from sasv.core.errors import SasvError
from sasv.store.database import Database
from sasv.store.keys import keyed_digest
from sasv.store.settings import Settings

START = "0" * 64
"""Replaces the digest of the preceding entry in the first entry."""

UNCHANGED = ("compare", "export")
"""Actions that do not change embeddings."""

TOGETHER = 1000
"""Number of entries that are checked at a time."""


class AuditTrail:
    """Entries with digests that can only be computed with the key."""

    def __init__(self, database: Database, settings: Settings, key: bytes) -> None:
        self._database = database
        self._settings = settings
        self._key = key

    def subject(self, speaker: str, tenant: str) -> str:
        """Return the digest that replaces the name of a speaker."""
        return keyed_digest(self._key, json.dumps([tenant, speaker]))

    def append(
        self, at: float, action: str, speaker: str, tenant: str, details: dict[str, Any]
    ) -> tuple[int, str]:
        """Append an entry, inside a transaction; return its number and digest."""
        last = self._database.execute(
            "SELECT number, digest FROM audit ORDER BY number DESC LIMIT 1"
        )
        number, before = (last[0][0] + 1, last[0][1]) if last else (1, START)
        subject = self.subject(speaker, tenant) if speaker else ""
        values = [number, at, action, subject, json.dumps(details)]
        digest = self._digest([*values, before])
        self._database.execute("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?)", (*values, digest))
        self._settings.set("audit_head", digest.encode())
        if action not in UNCHANGED:
            self._settings.set("changed", digest.encode())
        return number, digest

    def of(self, speaker: str, tenant: str) -> list[dict[str, Any]]:
        """Return the entries about a speaker, as plain values for JSON."""
        rows = self._database.execute(
            "SELECT number, time, action, details FROM audit WHERE subject = ? ORDER BY number",
            (self.subject(speaker, tenant),),
        )
        return [
            {"number": number, "time": at, "action": action, "details": json.loads(details)}
            for number, at, action, details in rows
        ]

    def verify(self) -> int:
        """Return the number of entries. Raises SasvError if one was changed, added, or removed."""
        name = self._database.name
        before = START
        number = 0
        while rows := self._database.execute(
            "SELECT number, time, action, subject, details, digest FROM audit "
            "WHERE number > ? ORDER BY number LIMIT ?",
            (number, TOGETHER),
        ):
            for found, at, action, subject, details, digest in rows:
                number += 1
                entry = [number, at, action, subject, details, before]
                if found != number or digest != self._digest(entry):
                    raise SasvError(
                        f"{name}: entry {number} of the audit trail was changed or removed"
                    )
                before = digest
        if number and self._settings.get("audit_head").decode() != before:
            raise SasvError(f"{name}: the end of the audit trail was removed")
        return number

    def _digest(self, entry: list[Any]) -> str:
        return keyed_digest(self._key, json.dumps(entry))
