"""The records of a voiceprint and of a deletion."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sasv.core.errors import SasvError
from sasv.decision import Recording
from sasv.runtime.verifier import Voiceprint

SECONDS_A_DAY = 86_400.0

MOST_CHARACTERS = 200
"""Maximum length of the name of a speaker or tenant, and of a label."""


@dataclass(frozen=True)
class Stored:
    """A voiceprint in a store.

    Attributes:
        id: identifier of the voiceprint.
        tenant: customer to whom the speaker belongs.
        speaker: name of the speaker.
        label: distinguishes the speaker's voiceprints, for instance headset and phone.
        model: fingerprint of the model that made it.
        net_speech: seconds of speech in its recordings.
        created: seconds since 1970.
        used: time of the last comparison; None if there was none.
        expires: time at which it is deleted; None if it does not expire.
        consent: note on the consent of the speaker.
        voiceprint: the embeddings.
    """

    id: str
    tenant: str
    speaker: str
    label: str
    model: str
    net_speech: float
    created: float
    used: float | None
    expires: float | None
    consent: str
    voiceprint: Voiceprint

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, including embeddings, as plain values for JSON."""
        values = {name: value for name, value in asdict(self).items() if name != "voiceprint"}
        return values | {"voiceprint": self.voiceprint.to_json()}

    def percentage(self, target: float) -> float:
        """Return the enrolled speech as a percentage of the given seconds, from 0 to 100."""
        return min(100.0, 100.0 * self.net_speech / target)


@dataclass(frozen=True)
class Receipt:
    """The receipt of a deletion, with the entry of the audit trail that records it.

    Attributes:
        deleted: identifiers of the voiceprints.
        entry: number of the entry.
        digest: digest of the entry; ``sasv store verify`` proves that the entry is in the trail.
    """

    deleted: tuple[str, ...]
    entry: int
    digest: str


def check_name(what: str, name: str) -> None:
    """Raise SasvError if a database could not store or find a name."""
    if len(name) > MOST_CHARACTERS:
        raise SasvError(f"the {what} has {len(name)} characters; at most {MOST_CHARACTERS}")
    if "\0" in name or not name.isprintable():
        raise SasvError(f"the {what} {name!r} contains characters that cannot be printed")


def content_of(recording: Recording) -> bytes:
    """Return what a recording and its copy have in common and no two others."""
    return np.asarray(recording.vector, "<f4").tobytes()


def context_of(known: Sequence[Any]) -> str:
    """Return the context with which a voiceprint is encrypted: all columns that identify and
    describe it.
    """
    return json.dumps(list(known))
