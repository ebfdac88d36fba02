"""The records of a voiceprint and of a deletion."""

from dataclasses import asdict, dataclass
from typing import Any

from sasv.runtime.verifier import Voiceprint

SECONDS_A_DAY = 86_400.0


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
