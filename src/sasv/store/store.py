"""The store: voiceprints in an SQLite file, or in a PostgreSQL database that several servers share.

A change and its entry in the audit trail are one transaction, which is on the disk before the call
returns. Embeddings are encrypted with a data key of the store; this key, and that of the audit
trail, are in the store, encrypted with the key of the owner. The audit trail names speakers by
keyed digests alone, and each entry contains the digest of the one before.
"""

import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from sasv.core.errors import SasvError
from sasv.runtime.verifier import Voiceprint
from sasv.scores import unit
from sasv.store.database import Database, Row, VectorTable
from sasv.store.keys import decrypted, encrypted, keyed_digest, new_key
from sasv.store.postgres import PostgresDatabase, is_address
from sasv.store.record import Receipt, Stored
from sasv.store.search import Directions, direction_of
from sasv.store.sqlite import SqliteDatabase

FORMAT = 1

TABLES = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value {blob} NOT NULL);
CREATE TABLE voiceprints (
    id TEXT PRIMARY KEY, tenant TEXT NOT NULL, speaker TEXT NOT NULL, label TEXT NOT NULL,
    model TEXT NOT NULL, net_speech {real} NOT NULL, created {real} NOT NULL, used {real},
    expires {real}, consent TEXT NOT NULL, sealed {blob} NOT NULL,
    UNIQUE (tenant, speaker, label)
);
CREATE TABLE optouts (digest TEXT PRIMARY KEY, time {real} NOT NULL);
CREATE TABLE audit (
    number {number} PRIMARY KEY, time {real} NOT NULL, action TEXT NOT NULL, subject TEXT NOT NULL,
    details TEXT NOT NULL, digest TEXT NOT NULL
);
"""
COLUMNS = "id, tenant, speaker, label, model, net_speech, created, expires, consent, used, sealed"
"""All but the last two are sealed together with the embeddings, so that no row can be changed."""

UNCHANGED = ("compare", "export")
"""Actions after which the embeddings are those of before."""

START = "0" * 64
"""What stands in the first entry of the trail for the digest of the one before."""

MOST_CHARACTERS = 200
"""Of the name of a speaker or tenant, and of a label."""

TOGETHER = 1000
"""Rows that are read at a time where there may be many."""


class VoiceprintStore:
    """Voiceprints of one file, or of one PostgreSQL database.

    Attributes:
        path: the file, or the address of the database without its password.
        searchable: whether the database holds unencrypted directions, and searches them itself.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        key: bytes,
        create: bool = True,
        clock: Callable[[], float] = time.time,
        searchable: bool = False,
    ) -> None:
        """Open a store.

        Args:
            path: the file, or ``postgresql://user@host/database``.
            key: key of the owner (see keys.read_key).
            create: make a new store if there is none.
            clock: gives the time, in seconds since 1970.
            searchable: of a new store in PostgreSQL: keep the directions of voiceprints
                unencrypted, so that pgvector can search them. By default each process searches in
                its own memory. An existing store stays what it is.

        Raises:
            StorageError: the database cannot be reached at the moment.
            SasvError: no store, or one of another key.
        """
        self.clock = clock
        self._lock = threading.RLock()
        self._searches: dict[tuple[str, str], Directions] = {}
        self._database: Database = (
            PostgresDatabase(str(path), create)
            if is_address(path)
            else SqliteDatabase(path, create)
        )
        self.path = self._database.name
        try:
            self._begin(key, searchable)
        except BaseException:
            self._database.close()
            raise

    def _begin(self, key: bytes, searchable: bool) -> None:
        with self._database.transaction():
            if self._database.empty():
                self._database.prepare(TABLES, searchable)
                self._set("format", str(FORMAT).encode())
                self._set("changed", b"")
                self._set("searchable", b"1" if searchable else b"")
                self._set("data_key", encrypted(key, new_key(), "data_key"))
                self._set("audit_key", encrypted(key, new_key(), "audit_key"))
        found = self._get("format").decode()
        if found != str(FORMAT):
            raise SasvError(f"{self.path}: format {found} is not known; upgrade sasv")
        self._owner_key = key
        self._audit_key = decrypted(key, self._get("audit_key"), "audit_key", self.path)
        self.searchable = bool(self._find("searchable"))
        if searchable and not self.searchable:
            raise SasvError(
                f"{self.path}: was not made searchable; enrol its speakers in a new store that is"
            )
        self._vectors: VectorTable | None = (
            self._database.vector_table() if self.searchable else None
        )

    def close(self) -> None:
        """Close the file, or the connection."""
        self._database.close()

    def add(
        self,
        voiceprint: Voiceprint,
        tenant: str = "default",
        label: str = "",
        consent: str = "",
        expires: float | None = None,
    ) -> Stored:
        """Keep a voiceprint; one of the same tenant, speaker, and label is replaced.

        Args:
            voiceprint: with the name of its speaker.
            tenant: whose customer the speaker is.
            label: which of the speaker's voiceprints it is.
            consent: note on the consent of the speaker.
            expires: when it is deleted, in seconds since 1970.

        Raises:
            SasvError: the voiceprint has no name, or its speaker opted out.
        """
        speaker = voiceprint.speaker
        if not speaker:
            raise SasvError("a voiceprint that is kept needs the name of its speaker")
        for what, name in (("speaker", speaker), ("tenant", tenant), ("label", label)):
            _check_name(what, name)
        if not voiceprint.recordings:
            raise SasvError(f"the voiceprint of {speaker} holds no recording")
        identifier = uuid.uuid4().hex
        with self._database.transaction():
            if self.opted_out(speaker, tenant):
                raise SasvError(f"{speaker} opted out; no voiceprint of this speaker may be kept")
            self._database.execute(
                "DELETE FROM voiceprints WHERE tenant = ? AND speaker = ? AND label = ?",
                (tenant, speaker, label),
            )
            named = (identifier, tenant, speaker, label, voiceprint.model)
            known = (*named, voiceprint.net_speech, self.clock(), expires, consent)
            sealed = encrypted(self._data_key(), voiceprint.to_json().encode(), _context(known))
            self._database.execute(
                f"INSERT INTO voiceprints ({COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
                (*known, None, sealed),
            )
            self._put_direction(identifier, voiceprint)
            self._record("add", speaker, tenant, {"id": identifier, "model": voiceprint.model})
        return self.get(identifier)

    def get(self, identifier: str) -> Stored:
        """Return a voiceprint that has not expired. SasvError if there is none."""
        found = self._select("id = ?", (identifier,))
        if not found:
            raise SasvError(f"{self.path}: no voiceprint {identifier}")
        return found[0]

    def of(self, speaker: str, tenant: str = "default") -> list[Stored]:
        """Return the voiceprints of a speaker that have not expired."""
        return self._select("speaker = ? AND tenant = ?", (speaker, tenant))

    def extend(self, identifier: str, more: Voiceprint) -> Stored:
        """Add the recordings of a further enrolment to a voiceprint.

        Raises:
            SasvError: there is no such voiceprint, or another model made it.
        """
        with self._database.transaction():
            found = self.get(identifier)
            if found.model != more.model:
                raise SasvError(
                    f"the voiceprint of {found.speaker} was made by another model; enrol the "
                    "speaker again"
                )
            recordings = (*found.voiceprint.recordings, *more.recordings)
            whole = Voiceprint(recordings, found.model, found.speaker)
            known = list(self._rows("id = ?", (identifier,))[0][:-2])
            known[5] = whole.net_speech
            sealed = encrypted(self._data_key(), whole.to_json().encode(), _context(known))
            self._database.execute(
                "UPDATE voiceprints SET net_speech = ?, sealed = ? WHERE id = ?",
                (whole.net_speech, sealed, identifier),
            )
            self._put_direction(identifier, whole)
            self._record("extend", found.speaker, found.tenant, {"id": identifier})
        return self.get(identifier)

    def used(self, identifier: str, outcome: str) -> None:
        """Record that a voiceprint was compared, and with which outcome."""
        with self._database.transaction():
            found = self.get(identifier)
            self._database.execute(
                "UPDATE voiceprints SET used = ? WHERE id = ?", (self.clock(), identifier)
            )
            details = {"id": identifier, "outcome": outcome}
            self._record("compare", found.speaker, found.tenant, details)

    def speakers(self, tenant: str = "default") -> list[str]:
        """Return the names of all speakers, in order."""
        rows = self._database.execute(
            "SELECT DISTINCT speaker FROM voiceprints WHERE tenant = ?", (tenant,)
        )
        return sorted(speaker for (speaker,) in rows)

    def search(
        self, vector: np.ndarray, model: str, tenant: str = "default", top: int = 5
    ) -> list[tuple[str, float]]:
        """Return the voiceprints that an embedding is most like: (id, cosine), the likeliest first.

        The search is exact. The directions of all voiceprints of the tenant are kept in memory
        between calls, and read again where they changed; a searchable store lets the database
        search, and computes the cosines of what it finds from the encrypted voiceprints.

        Args:
            vector: (dimension,), raw embedding of a recording.
            model: fingerprint of the model that made it; other voiceprints are not compared.
            tenant: whose voiceprints are searched.
            top: how many at most.
        """
        if self._vectors is not None:
            return self._search_database(self._vectors, vector, model, tenant, top)
        with self._lock:
            directions = self._searches.setdefault((tenant, model), Directions())
            with self._database.snapshot():
                state = self._get("changed")
                if directions.state != state:
                    directions.refresh(state, self._versions(tenant, model), self._load)
            return directions.nearest(vector, top, self.clock())

    def _search_database(
        self, vectors: VectorTable, vector: np.ndarray, model: str, tenant: str, top: int
    ) -> list[tuple[str, float]]:
        direction = unit(np.asarray(vector, np.float64)).astype(np.float32)
        with self._database.snapshot():
            names = vectors.nearest(direction, tenant, model, max(0, top), self.clock())
            found = [
                (stored.id, float(direction_of(stored.voiceprint) @ direction))
                for stored in self._load(names)
            ]
        return sorted(found, key=lambda one: one[1], reverse=True)

    def _versions(self, tenant: str, model: str) -> dict[str, bytes]:
        """Return the start of what each voiceprint is sealed as, which is random."""
        rows = self._database.execute(
            "SELECT id, substr(sealed, 1, 12) FROM voiceprints WHERE tenant = ? AND model = ?",
            (tenant, model),
        )
        return dict(rows)

    def _load(self, identifiers: Sequence[str]) -> Iterator[Stored]:
        """Read voiceprints, a number of them at a time."""
        for start in range(0, len(identifiers), TOGETHER):
            some = tuple(identifiers[start : start + TOGETHER])
            yield from self._select(f"id IN ({', '.join('?' * len(some))})", some, expired=True)

    def export(self, speaker: str, tenant: str = "default") -> dict[str, Any]:
        """Return all that is held about a speaker, as plain values for JSON."""
        with self._database.transaction():
            voiceprints = self._select(
                "speaker = ? AND tenant = ?", (speaker, tenant), expired=True
            )
            subject = self._subject(speaker, tenant)
            rows = self._database.execute(
                "SELECT number, time, action, details FROM audit WHERE subject = ? ORDER BY number",
                (subject,),
            )
            self._record("export", speaker, tenant, {})
        return {
            "speaker": speaker,
            "tenant": tenant,
            "opted_out": self.opted_out(speaker, tenant),
            "voiceprints": [stored.to_dict() for stored in voiceprints],
            "audit": [
                {"number": number, "time": at, "action": action, "details": json.loads(details)}
                for number, at, action, details in rows
            ],
        }

    def delete(self, speaker: str, tenant: str = "default") -> Receipt:
        """Delete all voiceprints of a speaker; return the receipt."""
        return self._delete("delete", speaker, tenant)

    def opt_out(self, speaker: str, tenant: str = "default") -> Receipt:
        """Delete all voiceprints of a speaker, and refuse new ones; return the receipt."""
        with self._database.transaction():
            self._database.execute(
                "INSERT INTO optouts VALUES (?, ?) ON CONFLICT DO NOTHING",
                (self._subject(speaker, tenant), self.clock()),
            )
            return self._delete("opt-out", speaker, tenant)

    def opted_out(self, speaker: str, tenant: str = "default") -> bool:
        """Whether a speaker opted out."""
        found = self._database.execute(
            "SELECT 1 FROM optouts WHERE digest = ?", (self._subject(speaker, tenant),)
        )
        return bool(found)

    def sweep(self) -> int:
        """Delete what has expired; return how many voiceprints."""
        with self._database.transaction():
            rows = self._database.execute(
                "SELECT id, speaker, tenant FROM voiceprints WHERE expires <= ?", (self.clock(),)
            )
            for identifier, speaker, tenant in rows:
                self._database.execute("DELETE FROM voiceprints WHERE id = ?", (identifier,))
                self._record("expire", speaker, tenant, {"id": identifier})
        return len(rows)

    def rotate(self, key: bytes) -> int:
        """Re-encrypt everything with a new data key under a new key of the owner; return how
        many voiceprints. All or nothing: an interruption leaves the old keys valid.
        """
        with self._database.transaction():
            old = self._data_key()
            fresh = new_key()
            rows = self._rows("TRUE", ())
            for *known, _, sealed in rows:
                context = _context(known)
                data = decrypted(old, sealed, context, f"{self.path}: voiceprint {known[0]}")
                self._database.execute(
                    "UPDATE voiceprints SET sealed = ? WHERE id = ?",
                    (encrypted(fresh, data, context), known[0]),
                )
            self._set("data_key", encrypted(key, fresh, "data_key"))
            self._set("audit_key", encrypted(key, self._audit_key, "audit_key"))
            self._record("rotate", "", "", {"voiceprints": len(rows)})
        self._owner_key = key
        return len(rows)

    def verify(self) -> int:
        """Check the audit trail, and that every voiceprint can be decrypted; return the number of
        entries.

        Raises:
            SasvError: an entry was changed, added, or removed, or a voiceprint was.
        """
        with self._database.transaction():
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
                            f"{self.path}: entry {number} of the audit trail was changed or removed"
                        )
                    before = digest
            if number and self._get("audit_head").decode() != before:
                raise SasvError(f"{self.path}: the end of the audit trail was removed")
            identifiers = self._database.execute("SELECT id FROM voiceprints")
            for stored in self._load([identifier for (identifier,) in identifiers]):
                self._check_direction(stored)
        return number

    def _put_direction(self, identifier: str, voiceprint: Voiceprint) -> None:
        if self._vectors is not None:
            self._vectors.put(identifier, direction_of(voiceprint))

    def _check_direction(self, stored: Stored) -> None:
        if self._vectors is None:
            return
        found = self._vectors.get(stored.id)
        expected = direction_of(stored.voiceprint)
        if found is None or found.shape != expected.shape or not np.allclose(found, expected):
            raise SasvError(
                f"{self.path}: the direction of voiceprint {stored.id} was changed or removed"
            )

    def _rows(self, where: str, values: tuple[Any, ...]) -> list[Row]:
        query = f"SELECT {COLUMNS} FROM voiceprints WHERE {where} ORDER BY created, id"
        return self._database.execute(query, values)

    def _select(self, where: str, values: tuple[Any, ...], expired: bool = False) -> list[Stored]:
        if not expired:
            where += " AND (expires IS NULL OR expires > ?)"
            values = (*values, self.clock())
        with self._database.snapshot():
            rows = self._rows(where, values)
            key = self._data_key() if rows else b""
        found = []
        for *known, used, sealed in rows:
            what = f"{self.path}: voiceprint {known[0]}"
            text = decrypted(key, sealed, _context(known), what).decode()
            values_of = dict(zip(COLUMNS.split(", "), known))
            found.append(
                Stored(**values_of, used=used, voiceprint=Voiceprint.from_json(text, what))
            )
        return found

    def _delete(self, action: str, speaker: str, tenant: str) -> Receipt:
        with self._database.transaction():
            rows = self._database.execute(
                "DELETE FROM voiceprints WHERE speaker = ? AND tenant = ? RETURNING id",
                (speaker, tenant),
            )
            deleted = tuple(identifier for (identifier,) in rows)
            number, digest = self._record(action, speaker, tenant, {"ids": list(deleted)})
        return Receipt(deleted, number, digest)

    def _record(
        self, action: str, speaker: str, tenant: str, details: dict[str, Any]
    ) -> tuple[int, str]:
        """Append an entry to the audit trail; return its number and digest."""
        last = self._database.execute(
            "SELECT number, digest FROM audit ORDER BY number DESC LIMIT 1"
        )
        number, before = (last[0][0] + 1, last[0][1]) if last else (1, START)
        subject = self._subject(speaker, tenant) if speaker else ""
        values = [number, self.clock(), action, subject, json.dumps(details)]
        digest = self._digest([*values, before])
        self._database.execute("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?)", (*values, digest))
        self._set("audit_head", digest.encode())
        if action not in UNCHANGED:
            self._set("changed", digest.encode())
        return number, digest

    def _digest(self, entry: list[Any]) -> str:
        return keyed_digest(self._audit_key, json.dumps(entry))

    def _subject(self, speaker: str, tenant: str) -> str:
        return keyed_digest(self._audit_key, json.dumps([tenant, speaker]))

    def _data_key(self) -> bytes:
        """Return the data key, read again: another process may have rotated it."""
        return decrypted(self._owner_key, self._get("data_key"), "data_key", self.path)

    def _get(self, name: str) -> bytes:
        value = self._find(name)
        if value is None:
            raise SasvError(f"{self.path}: is no store of sasv, or {name} was removed from it")
        return value

    def _find(self, name: str) -> bytes | None:
        found = self._database.execute("SELECT value FROM settings WHERE name = ?", (name,))
        return found[0][0] if found else None

    def _set(self, name: str, value: bytes) -> None:
        self._database.execute(
            "INSERT INTO settings VALUES (?, ?) "
            "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (name, value),
        )


def _context(known: Sequence[Any]) -> str:
    """Return what a voiceprint is sealed with: all columns that say whose and what it is."""
    return json.dumps(list(known))


def _check_name(what: str, name: str) -> None:
    """Raise SasvError where a database could not hold or find a name."""
    if len(name) > MOST_CHARACTERS:
        raise SasvError(f"the {what} has {len(name)} characters; at most {MOST_CHARACTERS}")
    if "\0" in name or not name.isprintable():
        raise SasvError(f"the {what} {name!r} holds characters that cannot be printed")
