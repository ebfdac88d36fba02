"""The store: voiceprints in an SQLite file, or in a PostgreSQL database that several servers share.

A change and its entry in the audit trail are one transaction, which is on the disk before the call
returns. Embeddings are encrypted with a data key of the store; this key, and that of the audit
trail, are in the store, encrypted with the key of the owner. The audit trail identifies speakers by
keyed digests only, and each entry contains the digest of the one before.
"""

import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sasv.core.errors import SasvError, StorageError
from sasv.decision import Verifier
from sasv.runtime.verifier import Voiceprint
from sasv.store.audit import AuditTrail
from sasv.store.database import Database, Row, VectorTable
from sasv.store.duplicates import Duplicate, DuplicateVoice, same_voice
from sasv.store.keys import decrypted, encrypted, new_key
from sasv.store.postgres import PostgresDatabase, is_address
from sasv.store.record import Receipt, Stored, check_name, content_of, context_of
from sasv.store.schema import COLUMNS, TABLES
from sasv.store.search import Directions, directed, direction_of, ranked
from sasv.store.settings import Settings
from sasv.store.speakers import SpeakerRecords
from sasv.store.sqlite import SqliteDatabase

FORMAT = 1

MOST_DUPLICATES = 10
"""Number of voiceprints, those with the highest cosines, that are compared with a new one."""

TOGETHER = 1000
"""Number of rows that are read at a time if there may be many."""


class VoiceprintStore:
    """Voiceprints of one file, or of one PostgreSQL database.

    Attributes:
        path: the file, or the address of the database without its password.
        searchable: whether the database contains unencrypted directions, and searches them itself.
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
            create: create the store if there is none.
            clock: returns the time, in seconds since 1970.
            searchable: of a new store in PostgreSQL: keep the directions of voiceprints
                unencrypted, so that pgvector can search them. By default, each process searches in
                its own memory. An existing store does not change.

        Raises:
            StorageError: the database cannot be reached at the moment.
            SasvError: there is no store, or it has another key.
        """
        self.clock = clock
        self._searches: dict[tuple[str, str], Directions] = {}
        self._database: Database = (
            PostgresDatabase(str(path), create)
            if is_address(path)
            else SqliteDatabase(path, create)
        )
        self.path = self._database.name
        self._settings = Settings(self._database)
        try:
            self._begin(key, searchable)
        except BaseException:
            self._database.close()
            raise

    def _begin(self, key: bytes, searchable: bool) -> None:
        with self._database.transaction():
            if self._database.empty():
                self._database.prepare(TABLES, searchable)
                self._settings.set("format", str(FORMAT).encode())
                self._settings.set("changed", b"")
                self._settings.set("searchable", b"1" if searchable else b"")
                self._settings.set("data_key", encrypted(key, new_key(), "data_key"))
                self._settings.set("audit_key", encrypted(key, new_key(), "audit_key"))
        found = self._settings.get("format").decode()
        if found != str(FORMAT):
            raise SasvError(f"{self.path}: format {found} is not known; upgrade sasv")
        self._owner_key = key
        self._audit_key = decrypted(key, self._settings.get("audit_key"), "audit_key", self.path)
        self._audit = AuditTrail(self._database, self._settings, self._audit_key)
        self._records = SpeakerRecords(self._database)
        with self._database.transaction():
            self._records.prepare()
        self.searchable = bool(self._settings.find("searchable"))
        if searchable and not self.searchable:
            raise SasvError(
                f"{self.path}: this store was not created as searchable; create a new one with "
                "--searchable, and enrol the speakers there"
            )
        self._vectors: VectorTable | None = (
            self._database.vector_table() if self.searchable else None
        )

    @property
    def database(self) -> Database:
        """The database, for further tables of a service. Calls of the store inside its
        ``transaction()`` form one change.
        """
        return self._database

    def close(self) -> None:
        """Close the file, or the connection."""
        self._database.close()

    def check(self) -> None:
        """Raise StorageError where the store cannot be read, or its key was changed meanwhile."""
        self._data_key()

    def add(
        self,
        voiceprint: Voiceprint,
        tenant: str = "default",
        label: str = "",
        consent: str = "",
        expires: float | None = None,
        verifier: Verifier | None = None,
    ) -> Stored:
        """Store a voiceprint, replacing that of the same tenant, speaker, and label.

        Args:
            voiceprint: the voiceprint, with the name of its speaker.
            tenant: customer to whom the speaker belongs.
            label: distinguishes the speaker's voiceprints.
            consent: note on the consent of the speaker.
            expires: time at which it is deleted, in seconds since 1970.
            verifier: refuses a voice that matches another speaker of the tenant (see
                ``duplicates``); by default, other speakers are not compared.

        Raises:
            DuplicateVoice: the voice is already enrolled under another name.
            SasvError: the voiceprint has no name, its speaker opted out, or ``expires`` has passed.
        """
        speaker = voiceprint.speaker
        if not speaker:
            raise SasvError("a voiceprint needs the name of its speaker to be stored")
        for what, name in (("speaker", speaker), ("tenant", tenant), ("label", label)):
            check_name(what, name)
        if not voiceprint.recordings:
            raise SasvError(f"the voiceprint of {speaker} contains no recording")
        if expires is not None and expires <= self.clock():
            raise SasvError(f"the voiceprint of {speaker} would have expired already")
        identifier = uuid.uuid4().hex
        # Also done before the transaction, so that reading the voiceprints does not keep other
        # writers waiting.
        self._refuse_duplicates(voiceprint, verifier, tenant)
        with self._database.transaction():
            self._refuse_duplicates(voiceprint, verifier, tenant)
            if self.opted_out(speaker, tenant):
                raise SasvError(f"{speaker} opted out; no voiceprint of this speaker may be stored")
            self._database.execute(
                "DELETE FROM voiceprints WHERE tenant = ? AND speaker = ? AND label = ?",
                (tenant, speaker, label),
            )
            named = (identifier, tenant, speaker, label, voiceprint.model)
            known = (*named, voiceprint.net_speech, self.clock(), expires, consent)
            sealed = encrypted(self._data_key(), voiceprint.to_json().encode(), context_of(known))
            self._database.execute(
                f"INSERT INTO voiceprints ({COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
                (*known, None, sealed),
            )
            self._put_direction(identifier, voiceprint)
            self._record("add", speaker, tenant, {"id": identifier, "model": voiceprint.model})
        return self.get(identifier)

    def get(self, identifier: str) -> Stored:
        """Return a voiceprint that has not expired. Raises SasvError if there is none."""
        found = self._select("id = ?", (identifier,))
        if not found:
            raise SasvError(f"{self.path}: there is no voiceprint {identifier}")
        return found[0]

    def of(self, speaker: str, tenant: str = "default") -> list[Stored]:
        """Return the voiceprints of a speaker that have not expired."""
        return self._select("speaker = ? AND tenant = ?", (speaker, tenant))

    def extend(self, identifier: str, more: Voiceprint, verifier: Verifier | None = None) -> Stored:
        """Add the recordings of a further enrolment to a voiceprint. One that it holds already, for
        instance of a request that is repeated because its answer was lost, counts once.

        Args:
            identifier: of the voiceprint.
            more: the recordings; the speaker is that of the voiceprint.
            verifier: refuse recordings that this takes for another speaker of the tenant, as in
                ``add``.

        Raises:
            DuplicateVoice: the voice of the recordings is already enrolled under another name.
            SasvError: there is no such voiceprint, or another model made it.
        """
        # Before the transaction as well, so that what is read for it keeps no other writer waiting.
        self._extendable(identifier, more, verifier)
        with self._database.transaction():
            found = self._extendable(identifier, more, verifier)
            held = {content_of(recording) for recording in found.voiceprint.recordings}
            new = [recording for recording in more.recordings if content_of(recording) not in held]
            if not new:
                return found
            recordings = (*found.voiceprint.recordings, *new)
            whole = Voiceprint(recordings, found.model, found.speaker)
            known = list(self._rows("id = ?", (identifier,))[0][:-2])
            known[5] = whole.net_speech
            sealed = encrypted(self._data_key(), whole.to_json().encode(), context_of(known))
            self._database.execute(
                "UPDATE voiceprints SET net_speech = ?, sealed = ? WHERE id = ?",
                (whole.net_speech, sealed, identifier),
            )
            self._put_direction(identifier, whole)
            self._record("extend", found.speaker, found.tenant, {"id": identifier})
        return self.get(identifier)

    def used(self, voiceprint: str | Stored, outcome: str) -> None:
        """Record that a voiceprint, given by its identifier or as it was read, was compared, and
        with which outcome. Raises SasvError if there is no such voiceprint any more.
        """
        with self._database.transaction():
            found = voiceprint if isinstance(voiceprint, Stored) else self.get(voiceprint)
            now = self.clock()
            changed = self._database.execute(
                "UPDATE voiceprints SET used = ? WHERE id = ? "
                "AND (expires IS NULL OR expires > ?) RETURNING 1",
                (now, found.id, now),
            )
            if not changed:
                raise SasvError(f"{self.path}: there is no voiceprint {found.id}")
            details = {"id": found.id, "outcome": outcome}
            self._record("compare", found.speaker, found.tenant, details)

    def speakers(self, tenant: str = "default") -> list[str]:
        """Return the names of all speakers with a voiceprint that has not expired, in order."""
        rows = self._database.execute(
            "SELECT DISTINCT speaker FROM voiceprints WHERE tenant = ? "
            "AND (expires IS NULL OR expires > ?)",
            (tenant, self.clock()),
        )
        return sorted(speaker for (speaker,) in rows)

    def search(
        self, vector: np.ndarray, model: str, tenant: str = "default", top: int = 5
    ) -> list[tuple[str, float]]:
        """Return the voiceprints that are most similar to an embedding: (id, cosine), the most
        similar first.

        The search is exact. The directions of all voiceprints of the tenant are kept in memory
        between calls, and read again if they have changed. In a searchable store, the database
        searches, and the cosines of the results are computed from the encrypted voiceprints.

        Args:
            vector: (dimension,), raw embedding of a recording.
            model: fingerprint of the model that made the embedding; voiceprints of other models are
                not compared.
            tenant: customer whose voiceprints are searched.
            top: maximum number of results.
        """
        with self._database.snapshot():
            now = self.clock()
            if self._vectors is not None:
                names = self._vectors.nearest(directed(vector), tenant, model, max(0, top), now)
                return ranked(self._load(names), vector)
            directions = self._searches.setdefault((tenant, model), Directions())
            state = self._settings.get("changed")
            if directions.state != state:
                directions.refresh(state, self._versions(tenant, model), self._load)
            return directions.nearest(vector, top, now)

    def duplicates(
        self, voiceprint: Voiceprint, verifier: Verifier, tenant: str = "default"
    ) -> list[Duplicate]:
        """Return other speakers whose voices match a voiceprint, the most likely first.

        The voiceprints with the highest cosines are compared as in a verification. The more
        speakers there are, the more often a different speaker merely sounds similar.

        Args:
            voiceprint: the voiceprint, with the name of its speaker, whose own voiceprints are left
                out.
            verifier: verifier of the model that made it, which decides what counts as the same
                voice.
            tenant: customer whose speakers are compared.
        """
        own = len(self.of(voiceprint.speaker, tenant))
        vector = direction_of(voiceprint)
        near = self.search(vector, voiceprint.model, tenant, MOST_DUPLICATES + own)
        found = [
            same_voice(verifier, stored, voiceprint)
            for stored in self._load([identifier for identifier, _ in near])
            if stored.speaker != voiceprint.speaker
        ]
        return sorted((one for one in found if one), key=lambda one: one.score, reverse=True)

    def _versions(self, tenant: str, model: str) -> dict[str, bytes]:
        """Return the beginning of each encrypted voiceprint, which is random."""
        rows = self._database.execute(
            "SELECT id, substr(sealed, 1, 12) FROM voiceprints WHERE tenant = ? AND model = ?",
            (tenant, model),
        )
        return dict(rows)

    def _load(self, identifiers: Sequence[str]) -> Iterator[Stored]:
        """Read voiceprints in groups."""
        for start in range(0, len(identifiers), TOGETHER):
            some = tuple(identifiers[start : start + TOGETHER])
            yield from self._select(f"id IN ({', '.join('?' * len(some))})", some, expired=True)

    def export(self, speaker: str, tenant: str = "default") -> dict[str, Any]:
        """Return everything that is stored about a speaker, as plain values for JSON."""
        with self._database.transaction():
            voiceprints = self._select(
                "speaker = ? AND tenant = ?", (speaker, tenant), expired=True
            )
            entries = self._audit.of(speaker, tenant)
            records = self._records.held(tenant, speaker)
            self._record("export", speaker, tenant, {})
        return {
            "speaker": speaker,
            "tenant": tenant,
            "opted_out": self.opted_out(speaker, tenant),
            "voiceprints": [stored.to_dict() for stored in voiceprints],
            "audit": entries,
            **records,
        }

    def delete(self, speaker: str, tenant: str = "default") -> Receipt:
        """Delete a speaker with all voiceprints; return the receipt."""
        return self._delete("delete", speaker, tenant)

    def opt_out(self, speaker: str, tenant: str = "default") -> Receipt:
        """Delete a speaker with all voiceprints, and refuse new ones; return the receipt."""
        with self._database.transaction():
            self._database.execute(
                "INSERT INTO optouts VALUES (?, ?) ON CONFLICT DO NOTHING",
                (self._audit.subject(speaker, tenant), self.clock()),
            )
            return self._delete("opt-out", speaker, tenant)

    def opted_out(self, speaker: str, tenant: str = "default") -> bool:
        """Whether a speaker opted out."""
        found = self._database.execute(
            "SELECT 1 FROM optouts WHERE digest = ?", (self._audit.subject(speaker, tenant),)
        )
        return bool(found)

    def sweep(self) -> int:
        """Delete expired voiceprints, and what a service keeps about speakers who have expired;
        return the number of voiceprints.
        """
        with self._database.transaction():
            rows = self._database.execute(
                "SELECT id, speaker, tenant FROM voiceprints WHERE expires <= ?", (self.clock(),)
            )
            for identifier, speaker, tenant in rows:
                self._database.execute("DELETE FROM voiceprints WHERE id = ?", (identifier,))
                self._records.forget_responses(tenant, speaker)
                self._record("expire", speaker, tenant, {"id": identifier})
            for speaker, tenant in self._records.expired(self.clock()):
                self._records.forget(tenant, speaker)
                self._record("expire", speaker, tenant, {})
        return len(rows)

    def rotate(self, key: bytes) -> int:
        """Encrypt everything again with a new data key under a new key of the owner; return the
        number of voiceprints. The change is made completely or not at all: after an interruption,
        the old keys remain valid.
        """
        with self._database.transaction():
            old = self._data_key()
            fresh = new_key()
            rows = self._rows("TRUE", ())
            for *known, _, sealed in rows:
                context = context_of(known)
                data = decrypted(old, sealed, context, f"{self.path}: voiceprint {known[0]}")
                self._database.execute(
                    "UPDATE voiceprints SET sealed = ? WHERE id = ?",
                    (encrypted(fresh, data, context), known[0]),
                )
            self._settings.set("data_key", encrypted(key, fresh, "data_key"))
            self._settings.set("audit_key", encrypted(key, self._audit_key, "audit_key"))
            self._record("rotate", "", "", {"voiceprints": len(rows)})
        self._owner_key = key
        return len(rows)

    def verify(self) -> int:
        """Check the audit trail, and that every voiceprint can be decrypted; return the number of
        entries.

        Raises:
            SasvError: an entry or a voiceprint was changed, added, or removed.
        """
        with self._database.transaction():
            number = self._audit.verify()
            identifiers = self._database.execute("SELECT id FROM voiceprints")
            for stored in self._load([identifier for (identifier,) in identifiers]):
                self._check_direction(stored)
        return number

    def _extendable(self, identifier: str, more: Voiceprint, verifier: Verifier | None) -> Stored:
        """Return a voiceprint to which recordings may be added."""
        found = self.get(identifier)
        if found.model != more.model:
            raise SasvError(
                f"the voiceprint of {found.speaker} was made by another model; enrol the "
                "speaker again"
            )
        self._refuse_duplicates(replace(more, speaker=found.speaker), verifier, found.tenant)
        return found

    def _refuse_duplicates(
        self, voiceprint: Voiceprint, verifier: Verifier | None, tenant: str
    ) -> None:
        found = [] if verifier is None else self.duplicates(voiceprint, verifier, tenant)
        if found:
            raise DuplicateVoice(voiceprint.speaker, found)

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
            text = decrypted(key, sealed, context_of(known), what).decode()
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
            self._records.forget(tenant, speaker)
            number, digest = self._record(action, speaker, tenant, {"ids": list(deleted)})
        return Receipt(deleted, number, digest)

    def _record(
        self, action: str, speaker: str, tenant: str, details: dict[str, Any]
    ) -> tuple[int, str]:
        """Append an entry to the audit trail; return its number and digest."""
        return self._audit.append(self.clock(), action, speaker, tenant, details)

    def _data_key(self) -> bytes:
        """Return the data key. It is read again, because another process may have rotated it."""
        sealed = self._settings.get("data_key")
        try:
            return decrypted(self._owner_key, sealed, "data_key", self.path)
        except SasvError as error:
            raise StorageError(
                f"{self.path}: its key was changed meanwhile (sasv store rotate); start again with "
                "the new key"
            ) from error
