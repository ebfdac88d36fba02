"""The store: one SQLite file that any number of processes on a machine can share.

A change and its entry in the audit trail are one transaction, which is on the disk before the call
returns. Embeddings are encrypted with a data key of the store; this key, and that of the audit
trail, are in the file, encrypted with the key of the owner. The audit trail names speakers by keyed
digests alone, and each entry contains the digest of the one before.
"""

import json
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sasv.core.errors import SasvError
from sasv.runtime.verifier import Voiceprint
from sasv.scores import unit
from sasv.store.keys import decrypted, encrypted, keyed_digest, new_key
from sasv.store.record import Receipt, Stored

FORMAT = 1
BUSY_SECONDS = 30.0
"""How long a process waits for another one that writes."""

TABLES = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE voiceprints (
    id TEXT PRIMARY KEY, tenant TEXT NOT NULL, speaker TEXT NOT NULL, label TEXT NOT NULL,
    model TEXT NOT NULL, net_speech REAL NOT NULL, created REAL NOT NULL, used REAL, expires REAL,
    consent TEXT NOT NULL, sealed BLOB NOT NULL,
    UNIQUE (tenant, speaker, label)
);
CREATE TABLE optouts (digest TEXT PRIMARY KEY, time REAL NOT NULL);
CREATE TABLE audit (
    number INTEGER PRIMARY KEY, time REAL NOT NULL, action TEXT NOT NULL, subject TEXT NOT NULL,
    details TEXT NOT NULL, digest TEXT NOT NULL
);
"""
COLUMNS = "id, tenant, speaker, label, model, net_speech, created, expires, consent, used, sealed"
"""All but the last two are sealed together with the embeddings, so that no row can be changed."""

UNCHANGED = ("compare", "export")
"""Actions after which the embeddings are those of before."""

START = "0" * 64
"""What stands in the first entry of the trail for the digest of the one before."""


class VoiceprintStore:
    """Voiceprints of one file.

    Attributes:
        path: the file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        key: bytes,
        create: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open a store.

        Args:
            path: the file.
            key: key of the owner (see keys.read_key).
            create: make a new store if there is no file.
            clock: gives the time, in seconds since 1970.

        Raises:
            SasvError: no store, or one of another key.
        """
        self.path = os.fspath(path)
        self.clock = clock
        self._lock = threading.RLock()
        self._search: _Search | None = None
        if not create and not Path(path).is_file():
            raise SasvError(f"{self.path}: no such store")
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            self._database = sqlite3.connect(
                self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.execute("PRAGMA secure_delete = ON")
            self._begin(key)
        except (sqlite3.Error, OSError) as error:
            raise SasvError(f"{self.path}: cannot be used as a store ({error})") from error

    def _begin(self, key: bytes) -> None:
        with self._transaction():
            if not self._database.execute("SELECT 1 FROM sqlite_master").fetchone():
                for statement in TABLES.split(";"):
                    self._database.execute(statement)
                self._set("format", str(FORMAT).encode())
                self._set("changed", b"")
                self._set("data_key", encrypted(key, new_key(), "data_key"))
                self._set("audit_key", encrypted(key, new_key(), "audit_key"))
        found = self._get("format").decode()
        if found != str(FORMAT):
            raise SasvError(f"{self.path}: format {found} is not known; upgrade sasv")
        self._owner_key = key
        self._audit_key = decrypted(key, self._get("audit_key"), "audit_key", self.path)

    def close(self) -> None:
        """Close the file."""
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
        if not voiceprint.recordings:
            raise SasvError(f"the voiceprint of {speaker} holds no recording")
        identifier = uuid.uuid4().hex
        with self._transaction():
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
        with self._transaction():
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
            self._record("extend", found.speaker, found.tenant, {"id": identifier})
        return self.get(identifier)

    def used(self, identifier: str, outcome: str) -> None:
        """Record that a voiceprint was compared, and with which outcome."""
        with self._transaction():
            found = self.get(identifier)
            self._database.execute(
                "UPDATE voiceprints SET used = ? WHERE id = ?", (self.clock(), identifier)
            )
            details = {"id": identifier, "outcome": outcome}
            self._record("compare", found.speaker, found.tenant, details)

    def speakers(self, tenant: str = "default") -> list[str]:
        """Return the names of all speakers, in order."""
        rows = self._database.execute(
            "SELECT DISTINCT speaker FROM voiceprints WHERE tenant = ? ORDER BY speaker", (tenant,)
        )
        return [speaker for (speaker,) in rows]

    def search(
        self, vector: np.ndarray, model: str, tenant: str = "default", top: int = 5
    ) -> list[tuple[str, float]]:
        """Return the voiceprints that an embedding is most like: (id, cosine), the likeliest first.

        The search is exact; the directions of all voiceprints are kept in memory between calls.

        Args:
            vector: (dimension,), raw embedding of a recording.
            model: fingerprint of the model that made it; other voiceprints are not compared.
            tenant: whose voiceprints are searched.
            top: how many at most.
        """
        with self._lock:
            mark = f"{tenant}\n{model}\n{self._get('changed').decode()}"
            if self._search is None or self._search.mark != mark:
                self._search = _Search.of(
                    mark, self._select("tenant = ? AND model = ?", (tenant, model))
                )
            return self._search.nearest(vector, top, self.clock())

    def export(self, speaker: str, tenant: str = "default") -> dict[str, Any]:
        """Return all that is held about a speaker, as plain values for JSON."""
        with self._transaction():
            voiceprints = self._select(
                "speaker = ? AND tenant = ?", (speaker, tenant), expired=True
            )
            subject = self._subject(speaker, tenant)
            rows = self._database.execute(
                "SELECT number, time, action, details FROM audit WHERE subject = ? ORDER BY number",
                (subject,),
            ).fetchall()
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
        with self._transaction():
            self._database.execute(
                "INSERT OR IGNORE INTO optouts VALUES (?, ?)",
                (self._subject(speaker, tenant), self.clock()),
            )
            return self._delete("opt-out", speaker, tenant)

    def opted_out(self, speaker: str, tenant: str = "default") -> bool:
        """Whether a speaker opted out."""
        found = self._database.execute(
            "SELECT 1 FROM optouts WHERE digest = ?", (self._subject(speaker, tenant),)
        )
        return found.fetchone() is not None

    def sweep(self) -> int:
        """Delete what has expired; return how many voiceprints."""
        with self._transaction():
            rows = self._database.execute(
                "SELECT id, speaker, tenant FROM voiceprints WHERE expires <= ?", (self.clock(),)
            ).fetchall()
            for identifier, speaker, tenant in rows:
                self._database.execute("DELETE FROM voiceprints WHERE id = ?", (identifier,))
                self._record("expire", speaker, tenant, {"id": identifier})
        return len(rows)

    def rotate(self, key: bytes) -> int:
        """Re-encrypt everything with a new data key under a new key of the owner; return how
        many voiceprints. All or nothing: an interruption leaves the old keys valid.
        """
        with self._transaction():
            old = self._data_key()
            fresh = new_key()
            rows = self._rows("1", ())
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
        with self._transaction():
            before = START
            number = 0
            rows = self._database.execute(
                "SELECT number, time, action, subject, details, digest FROM audit ORDER BY number"
            )
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
            self._select("1", (), expired=True)
        return number

    def _rows(self, where: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        query = f"SELECT {COLUMNS} FROM voiceprints WHERE {where} ORDER BY created, id"
        return self._database.execute(query, values).fetchall()

    def _select(self, where: str, values: tuple[Any, ...], expired: bool = False) -> list[Stored]:
        if not expired:
            where += " AND (expires IS NULL OR expires > ?)"
            values = (*values, self.clock())
        with self._lock:
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
        with self._transaction():
            rows = self._database.execute(
                "DELETE FROM voiceprints WHERE speaker = ? AND tenant = ? RETURNING id",
                (speaker, tenant),
            ).fetchall()
            deleted = tuple(identifier for (identifier,) in rows)
            number, digest = self._record(action, speaker, tenant, {"ids": list(deleted)})
        return Receipt(deleted, number, digest)

    def _record(
        self, action: str, speaker: str, tenant: str, details: dict[str, Any]
    ) -> tuple[int, str]:
        """Append an entry to the audit trail; return its number and digest."""
        last = self._database.execute(
            "SELECT number, digest FROM audit ORDER BY number DESC LIMIT 1"
        ).fetchone()
        number, before = (last[0] + 1, last[1]) if last else (1, START)
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
        found = self._database.execute(
            "SELECT value FROM settings WHERE name = ?", (name,)
        ).fetchone()
        if found is None:
            raise SasvError(f"{self.path}: is no store of sasv, or {name} was removed from it")
        value: bytes = found[0]
        return value

    def _set(self, name: str, value: bytes) -> None:
        self._database.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Make the changes inside at once or not at all; nested ones belong to the outer one."""
        with self._lock:
            if self._database.in_transaction:
                yield
                return
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")


def _context(known: Sequence[Any]) -> str:
    """Return what a voiceprint is sealed with: all columns that say whose and what it is."""
    return json.dumps(list(known))


@dataclass(frozen=True)
class _Search:
    """Directions of voiceprints, in memory.

    Attributes:
        mark: which voiceprints, and of which state of the store.
        identifiers: of the rows.
        expires: when each expires; infinite if it does not.
        matrix: float32 (voiceprints, dimension), of length one.
    """

    mark: str
    identifiers: list[str]
    expires: np.ndarray
    matrix: np.ndarray

    @classmethod
    def of(cls, mark: str, found: Sequence[Stored]) -> "_Search":
        """Make it of voiceprints."""
        means = [
            np.mean([np.asarray(one.vector) for one in stored.voiceprint.recordings], axis=0)
            for stored in found
        ]
        matrix = unit(np.stack(means)).astype(np.float32) if means else np.zeros((0, 1), np.float32)
        ends = [np.inf if stored.expires is None else stored.expires for stored in found]
        return cls(mark, [stored.id for stored in found], np.array(ends), matrix)

    def nearest(self, vector: np.ndarray, top: int, now: float) -> list[tuple[str, float]]:
        """Return the rows that are most like a vector and have not expired."""
        if not self.identifiers or top < 1:
            return []
        cosines = self.matrix @ unit(np.asarray(vector, np.float64)).astype(np.float32)
        cosines[self.expires <= now] = -np.inf
        top = min(top, len(cosines))
        best = np.argpartition(-cosines, top - 1)[:top]
        best = best[np.argsort(-cosines[best], kind="stable")]
        return [
            (self.identifiers[row], float(cosines[row])) for row in best if cosines[row] > -np.inf
        ]
