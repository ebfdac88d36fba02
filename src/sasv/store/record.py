"""What a store records about a voiceprint and about a deletion."""

from dataclasses import asdict, dataclass
from typing import Any

from sasv.runtime.verifier import Voiceprint

SECONDS_A_DAY = 86_400.0


@dataclass(frozen=True)
class Stored:
    """A voiceprint in a store.

    Attributes:
        id: of the voiceprint.
        tenant: whose customer the speaker is.
        speaker: whose voice it is.
        label: which of the speaker's voiceprints: headset, phone.
        model: fingerprint of the model that made it.
        net_speech: seconds of speech that it was made of.
        created: seconds since 1970.
        used: when it was last compared; None where it never was.
        expires: when it is deleted; None if it is not.
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
        """Return what is held, as plain values for JSON, embeddings included."""
        values = {name: value for name, value in asdict(self).items() if name != "voiceprint"}
        return values | {"voiceprint": self.voiceprint.to_json()}

    def percentage(self, target: float) -> float:
        """Return the enrolled speech as a percentage of the given seconds, from 0 to 100."""
        return min(100.0, 100.0 * self.net_speech / target)


@dataclass(frozen=True)
class Receipt:
    """What was deleted, and the entry of the audit trail that says so.

    Attributes:
        deleted: identifiers of the voiceprints.
        entry: number of the entry.
        digest: of the entry; ``sasv store verify`` proves that it is in the trail.
    """

    deleted: tuple[str, ...]
    entry: int
    digest: str
