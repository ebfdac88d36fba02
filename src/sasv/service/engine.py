"""The functions of the service without HTTP: speakers, enrolments, and decisions of a tenant."""

import dataclasses
import io
import time
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import soundfile

from sasv.core.errors import MissingExtra, SasvError
from sasv.decision import Decision, Reason, Recording, detect_spoof
from sasv.metrics import cost_model
from sasv.runtime.embedder import Embedder
from sasv.runtime.verifier import Verifier, Voiceprint
from sasv.service.metrics import Metrics
from sasv.service.problems import Problem
from sasv.service.recordings import decoded, measured
from sasv.service.settings import Settings
from sasv.service.state import ServiceState
from sasv.service.work import Work
from sasv.store import Stored, VoiceprintStore
from sasv.store.record import SECONDS_A_DAY

DETECTION_COSTS = "track1"
COPY_SECONDS = 20.0
"""Maximum length of a recording to copy with a vocoder, in seconds. Copying takes about a tenth of
this time.
"""

ENROLLED = "enrolment recording"
"""Name of the recordings of a voiceprint in messages."""

VOICEPRINTS_A_SPEAKER = 3
"""Ratio of the number of voiceprints to the number of speakers in a search, because a speaker may
have several.
"""


class Engine:
    """Enrols, verifies, identifies, and detects.

    Attributes:
        verifier: the model, and how it decides.
    """

    def __init__(
        self,
        model: Embedder,
        store: VoiceprintStore,
        state: ServiceState,
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        """Set up an engine.

        Raises:
            SasvError: the model has neither a calibration nor a threshold.
        """
        self.verifier = Verifier(model)
        if not self.verifier.decider.decides:
            raise SasvError(
                f"{model.name}: the model has no threshold, so the service cannot decide; "
                "calibrate it with sasv calibrate, and export it again"
            )
        self.embedder = model
        self.store = store
        self.state = state
        self.settings = settings
        self.metrics = metrics

    @property
    def limits(self) -> Any:
        """The requirements on recordings."""
        return self.verifier.decider.limits

    def create_speaker(
        self, tenant: str, speaker: str, consent: str, days: float | None
    ) -> dict[str, Any]:
        """Create a speaker, choosing an identifier if none is given.

        Raises:
            Problem: the speaker exists already, or opted out.
        """
        speaker = speaker or uuid.uuid4().hex
        self._check_opt_out(tenant, speaker)
        expires = None if days is None else time.time() + days * SECONDS_A_DAY
        if self.store.of(speaker, tenant) or not self.state.add_speaker(
            tenant, speaker, consent, expires
        ):
            raise Problem(409, "speaker_exists", f"a speaker {speaker} exists already")
        return self.speaker(tenant, speaker)

    def speaker(self, tenant: str, speaker: str) -> dict[str, Any]:
        """Return the record of a speaker. Raises Problem if there is none."""
        stored = self.store.of(speaker, tenant)
        known = self.state.speaker(tenant, speaker)
        if known is None and not stored:
            raise _unknown(speaker)
        return {
            "id": speaker,
            "created": known.created if known else min(one.created for one in stored),
            "consent": known.consent if known else stored[0].consent,
            "expires": known.expires if known else stored[0].expires,
            "voiceprints": [self._described(one) for one in stored],
        }

    def speakers(self, tenant: str, after: str, most: int) -> dict[str, Any]:
        """Return the identifiers of speakers in order, beginning after ``after``."""
        names = sorted({*self.state.speakers(tenant), *self.store.speakers(tenant)})
        rest = [name for name in names if name > after]
        page = rest[:most]
        return {"speakers": page, "next": page[-1] if len(rest) > most else None}

    def delete_speaker(self, tenant: str, speaker: str, opt_out: bool) -> dict[str, Any]:
        """Delete a speaker with all voiceprints; return the receipt. Raises Problem if there is
        none.

        Args:
            tenant: to whom the speaker belongs.
            speaker: identifier.
            opt_out: refuse this speaker from now on; possible for an unknown speaker, too.
        """
        with self.state.database.transaction():
            known = self.state.speaker(tenant, speaker)
            delete = self.store.opt_out if opt_out else self.store.delete
            receipt = delete(speaker, tenant)
            if known is None and not receipt.deleted and not opt_out:
                raise _unknown(speaker)
        return {
            "speaker": speaker,
            "deleted": list(receipt.deleted),
            "opted_out": opt_out,
            "entry": receipt.entry,
            "digest": receipt.digest,
        }

    def export_speaker(self, tenant: str, speaker: str) -> dict[str, Any]:
        """Return everything that is stored about a speaker."""
        return self.store.export(speaker, tenant)

    def enrolment(
        self, tenant: str, speaker: str, label: str, data: bytes, replace: bool, unique: bool
    ) -> Work:
        """Return the work of adding a recording to a voiceprint.

        Args:
            tenant: to whom the speaker belongs.
            speaker: identifier of the speaker.
            label: selects one of the speaker's voiceprints.
            data: audio file.
            replace: replace the voiceprint instead of adding to it.
            unique: refuse a voice that is already enrolled as another speaker; otherwise, this is
                only a warning.

        The work raises:
            Problem: the speaker is unknown or opted out, the recording cannot be used, the
                voiceprint was made by another model, or the voice is not unique.
        """

        def read() -> None:
            self._known(tenant, speaker)
            self._check_opt_out(tenant, speaker)

        def record(recording: Recording) -> dict[str, Any]:
            named = dataclasses.replace(recording, name=ENROLLED)
            fresh = Voiceprint((named,), self.embedder.fingerprint, speaker)
            others = self._others(tenant, speaker, fresh)
            if others and unique:
                raise Problem(409, "duplicate_voice", others[0].text)
            stored = self._extended(tenant, speaker, label, fresh, replace)
            warnings = [
                *others,
                *self.limits.disagreements(stored.voiceprint.recordings),
                *self.limits.warnings([recording]),
            ]
            return {
                "speaker": speaker,
                "voiceprint": self._described(stored),
                "recording": recording.to_dict(),
                "reasons": [reason.to_dict() for reason in warnings],
            }

        return Work(read, lambda _: self._usable(data), record)

    def _usable(self, data: bytes) -> Recording:
        """Return a recording for an enrolment. Raises Problem if it cannot be used."""
        recording = self._recording("enrol", data)
        faults = self.limits.faults(recording)
        if faults:
            for reason in faults:
                self.metrics.reasons.labels(reason.code).inc()
            raise Problem(
                422,
                "unusable_recording",
                "; ".join(reason.text for reason in faults),
                reasons=[reason.to_dict() for reason in faults],
                recording=recording.to_dict(),
            )
        return recording

    def _others(self, tenant: str, speaker: str, fresh: Voiceprint) -> list[Reason]:
        """Return a warning if a voice is already enrolled as another speaker."""
        found = self.store.duplicates(fresh, self.verifier.decider, tenant)
        if not found:
            return []
        text = f"this voice is already enrolled as {found[0].speaker}"
        return [Reason("duplicate_voice", text)]

    def _extended(
        self, tenant: str, speaker: str, label: str, fresh: Voiceprint, replace: bool
    ) -> Stored:
        known = self._known(tenant, speaker)
        found = [one for one in self.store.of(speaker, tenant) if one.label == label]
        if not found or replace:
            consent, expires = (known.consent, known.expires) if known else ("", None)
            return self.store.add(fresh, tenant, label, consent, expires)
        if found[0].model != self.embedder.fingerprint:
            raise _other_model(speaker)
        if len(found[0].voiceprint.recordings) >= self.settings.max_recordings:
            raise Problem(
                409,
                "enrolment_full",
                f"the voiceprint already contains {self.settings.max_recordings} recordings, the "
                "maximum; replace it with replace=true",
            )
        return self.store.extend(found[0].id, fresh)

    def verification(self, tenant: str, speaker: str, label: str | None, data: bytes) -> Work:
        """Return the work of deciding whether a recording is bona fide speech of a speaker. If the
        speaker has several voiceprints, the most similar one decides.

        The work raises:
            Problem: the speaker is not enrolled, or the recording cannot be read.
        """

        def compute(voiceprints: list[Stored]) -> tuple[Stored, Decision, Recording]:
            recording = self._recording("verify", data)
            return (*self.best(voiceprints, recording), recording)

        return Work(
            lambda: self.voiceprints(tenant, speaker, label),
            compute,
            lambda found: self.decided(speaker, *found),
            partial(self.metrics.decision, "verify"),
        )

    def voiceprints(self, tenant: str, speaker: str, label: str | None) -> list[Stored]:
        """Return the voiceprints of a speaker that can be compared. Raises Problem if there is
        none.
        """
        found = self.store.of(speaker, tenant)
        if not found:
            self._known(tenant, speaker)
        if label is not None:
            found = [one for one in found if one.label == label]
        if not found:
            which = "" if label is None else f" with the label '{label}'"
            raise Problem(409, "not_enrolled", f"{speaker} has no voiceprint{which}; enrol first")
        current = [one for one in found if one.model == self.embedder.fingerprint]
        if not current:
            raise _other_model(speaker)
        return current

    def best(self, voiceprints: Sequence[Stored], test: Recording) -> tuple[Stored, Decision]:
        """Return the voiceprint with the highest score, and the decision on it."""
        decisions = [
            (one, self.verifier.decider.decide(one.voiceprint.recordings, test))
            for one in voiceprints
        ]
        return max(decisions, key=lambda one: one[1].scores.get("sasv", -np.inf))

    def decided(
        self, speaker: str, stored: Stored, decision: Decision, recording: Recording
    ) -> dict[str, Any]:
        """Record a decision, and return it as plain values.

        Raises:
            Problem: the voiceprint was deleted in the meantime, so there is no decision.
        """
        try:
            self.store.used(stored, decision.outcome.value)
        except SasvError as error:
            if any(one.id == stored.id for one in self.store.of(speaker, stored.tenant)):
                raise
            raise Problem(
                409, "conflict", f"the voiceprint of {speaker} was deleted in the meantime"
            ) from error
        return decision.to_dict() | {
            "speaker": speaker,
            "voiceprint": stored.id,
            "label": stored.label,
            "model": self.embedder.fingerprint,
            "recording": recording.to_dict(),
        }

    def identification(self, tenant: str, data: bytes, top: int) -> Work:
        """Return the work of finding the enrolled speakers who are most similar to a recording, the
        most similar first, each with the decision on a claim to be that speaker.
        """
        model = self.embedder.fingerprint

        def compute(_: None) -> tuple[Recording, list[tuple[Stored, Decision]]]:
            recording = self._recording("identify", data)
            if self.limits.faults(recording):
                return recording, []
            assert recording.vector is not None
            found = self.store.search(recording.vector, model, tenant, top * VOICEPRINTS_A_SPEAKER)
            likeliest: dict[str, Stored] = {}
            for identifier, _cosine in found:
                stored = self.store.get(identifier)
                if len(likeliest) < top:
                    likeliest.setdefault(stored.speaker, stored)
            return recording, [self.best([stored], recording) for stored in likeliest.values()]

        def record(found: tuple[Recording, list[tuple[Stored, Decision]]]) -> dict[str, Any]:
            recording, decisions = found
            candidates = [
                self.decided(stored.speaker, stored, decision, recording)
                for stored, decision in decisions
            ]
            candidates.sort(
                key=lambda one: -np.inf if one["score"] is None else one["score"], reverse=True
            )
            faults = self.limits.faults(recording)
            reasons = [reason.to_dict() for reason in faults]
            if not faults and not candidates:
                reasons = [
                    {"code": "nobody_enrolled", "text": "nobody is enrolled with this model"}
                ]
            return {
                "outcome": candidates[0]["outcome"] if candidates else "inconclusive",
                "candidates": candidates,
                "reasons": candidates[0]["reasons"] if candidates else reasons,
                "recording": recording.to_dict(),
                "model": model,
            }

        def count(body: Mapping[str, Any]) -> None:
            for candidate in body["candidates"]:
                self.metrics.decision("identify", candidate)

        return Work(compute=compute, record=record, count=count)

    def detection(self, data: bytes) -> Work:
        """Return the work of deciding whether a recording is bona fide or spoofed speech,
        regardless of the speaker. Raises Problem if the model cannot tell.
        """
        three_way = self.verifier.decider.three_way
        if three_way is None:
            raise Problem(501, "not_supported", "the model has no calibrated spoof score")

        def compute(_: None) -> dict[str, Any]:
            recording = self._recording("detect", data)
            costs = cost_model(DETECTION_COSTS)
            values = detect_spoof(three_way, recording, self.limits, costs)
            return values | {"recording": recording.to_dict(), "model": self.embedder.fingerprint}

        return Work(compute=compute, count=partial(self.metrics.decision, "detect"))

    def copy(self, data: bytes) -> bytes:
        """Return a copy of a recording made with the vocoder WORLD, as a WAV file.

        Raises:
            Problem: the vocoder is not installed, or the recording cannot be read.
        """
        from sasv.vocoders import make_vocoder

        rate = self.embedder.specification.sample_rate
        try:
            vocoder = make_vocoder("world")
        except MissingExtra as error:
            raise Problem(501, "not_supported", str(error)) from error
        wave = decoded(data, rate, min(COPY_SECONDS, self.settings.max_seconds))
        stream = io.BytesIO()
        soundfile.write(stream, vocoder(wave, rate), rate, format="WAV", subtype="PCM_16")
        return stream.getvalue()

    def about(self) -> dict[str, Any]:
        """Return the information that a client needs about the service."""
        limits = self.limits
        decider = self.verifier.decider
        return {
            "model": self.embedder.fingerprint,
            "encoder": self.embedder.specification.encoder,
            "sample_rate": self.embedder.specification.sample_rate,
            "detects": decider.three_way is not None,
            "min_enrolment": limits.min_enrolment,
            "min_test": limits.min_test,
            "enrolment_seconds": self.settings.enrolment_seconds,
            "max_seconds": self.settings.max_seconds,
            "max_bytes": self.settings.max_bytes,
            "demo": self.settings.demo,
        }

    def _recording(self, operation: str, data: bytes) -> Recording:
        rate = self.embedder.specification.sample_rate
        wave = decoded(data, rate, self.settings.max_seconds)
        recording = measured(wave, self.embedder, self.limits)
        self.metrics.recording(operation, recording.to_dict())
        return recording

    def _known(self, tenant: str, speaker: str) -> Any:
        """Return the record of a speaker in the state, or None if only the store knows the speaker.
        Raises Problem if neither does.
        """
        known = self.state.speaker(tenant, speaker)
        if known is None and not self.store.of(speaker, tenant):
            raise _unknown(speaker)
        return known

    def _check_opt_out(self, tenant: str, speaker: str) -> None:
        if self.store.opted_out(speaker, tenant):
            raise Problem(409, "opted_out", f"{speaker} opted out and cannot be enrolled")

    def _described(self, stored: Stored) -> dict[str, Any]:
        return {
            "id": stored.id,
            "label": stored.label,
            "recordings": len(stored.voiceprint.recordings),
            "net_speech": round(stored.net_speech, 3),
            "percentage": round(stored.percentage(self.settings.enrolment_seconds), 1),
            "sufficient": stored.net_speech >= self.limits.min_enrolment,
            "current_model": stored.model == self.embedder.fingerprint,
            "quality": [one.to_dict() for one in stored.voiceprint.recordings],
            "created": stored.created,
            "last_used": stored.used,
            "expires": stored.expires,
        }


def _unknown(speaker: str) -> Problem:
    return Problem(404, "unknown_speaker", f"there is no speaker {speaker}")


def _other_model(speaker: str) -> Problem:
    return Problem(
        409,
        "model_changed",
        f"the voiceprint of {speaker} was made by another model; enrol again with replace=true",
    )
