"""What a decision has to know of a recording, and what a recording has to hold to be compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from sasv.core.errors import SasvError
from sasv.decision.outcome import Reason
from sasv.scores.directions import unit, without_direction


@dataclass(frozen=True)
class Recording:
    """A recording as a verifier sees it.

    Attributes:
        name: for messages: usually its path.
        vector: (dimension,), its raw embedding; None where it was not embedded because it must not
            be compared.
        seconds: length of what was embedded.
        net_speech: seconds of speech in it; None where nobody measured.
        share: share of the whole recording that is speech, in [0, 1]; None where nobody measured.
        level: root mean square of the whole recording in dB relative to full scale; None where
            nobody measured.
    """

    name: str
    vector: np.ndarray | None
    seconds: float
    net_speech: float | None = None
    share: float | None = None
    level: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the facts as plain values for JSON, without the embedding; a level of -inf
        (silence) is None.
        """
        level = None if self.level is None or not np.isfinite(self.level) else round(self.level, 2)
        return {
            "recording": self.name,
            "seconds_compared": round(self.seconds, 3) if self.vector is not None else 0.0,
            "net_speech": None if self.net_speech is None else round(self.net_speech, 3),
            "speech_share": None if self.share is None else round(self.share, 4),
            "level_dbfs": level,
        }


@dataclass(frozen=True)
class SpeechLimits:
    """What recordings have to hold before anything is compared, and how much silence around speech
    is kept.

    Attributes:
        min_enrolment: seconds of speech that the enrolment recordings have to hold together.
        min_test: seconds of speech that the test recording, and each enrolment recording, has to
            hold.
        max_pause: before embedding, longer stretches without speech are cut down to so many
            seconds, so that silence around speech cannot change a verdict; None embeds recordings
            whole.
        min_agreement: an enrolment recording whose cosine with the mean of the others is lower is
            named.
    """

    min_enrolment: float = 1.0
    min_test: float = 0.75
    max_pause: float | None = 0.5
    min_agreement: float = 0.5

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if value is None and entry.name == "max_pause":
                continue
            if not isinstance(value, int | float) or not np.isfinite(value):
                raise SasvError(f"{entry.name} is {value}; it has to be a finite number")
            if value < 0 and entry.name != "min_agreement":
                raise SasvError(f"{entry.name} is {value:g}; it has to be at least 0")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "SpeechLimits":
        """Make it of plain values. SasvError names what is unknown."""
        known = {entry.name for entry in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise SasvError(
                f"unknown limits of speech: {', '.join(unknown)}; known: {', '.join(sorted(known))}"
            )
        return cls(**values)

    def faults(self, recording: Recording) -> list[Reason]:
        """Return why a recording must not be compared; none where it may."""
        if recording.net_speech is not None and recording.net_speech < self.min_test:
            if recording.net_speech == 0:
                return [Reason("no_speech", f"{recording.name}: no speech was found in it", True)]
            text = (
                f"{recording.name}: {recording.net_speech:.2f} s of speech, at least "
                f"{self.min_test:g} s are needed"
            )
            return [Reason("too_little_speech", text, True)]
        if recording.vector is None:
            return [Reason("no_embedding", f"{recording.name}: has no embedding", True)]
        if without_direction(recording.vector):
            return [
                Reason(
                    "broken_embedding",
                    f"{recording.name}: its embedding is zero or not finite",
                    True,
                )
            ]
        return []

    def enrolment_faults(self, recordings: Sequence[Recording]) -> list[Reason]:
        """Return why recordings cannot enrol a speaker together; none where they can."""
        if not recordings:
            return [Reason("no_enrolment", "enrolment needs at least one recording", True)]
        found = [reason for recording in recordings for reason in self.faults(recording)]
        measured = [
            recording.net_speech for recording in recordings if recording.net_speech is not None
        ]
        if not found and len(measured) == len(recordings) and sum(measured) < self.min_enrolment:
            text = (
                f"the enrolment recordings hold {sum(measured):.2f} s of speech together, at least "
                f"{self.min_enrolment:g} s are needed: "
                f"{', '.join(recording.name for recording in recordings)}"
            )
            found.append(Reason("too_little_enrolment_speech", text, True))
        return found

    def disagreements(self, recordings: Sequence[Recording]) -> list[Reason]:
        """Return a warning for each enrolment recording that is far from the others (at least two
        recordings).
        """
        if len(recordings) < 2:
            return []
        vectors = unit(np.stack([np.asarray(one.vector, np.float64) for one in recordings]))
        found = []
        for row, recording in enumerate(recordings):
            others = unit(np.delete(vectors, row, axis=0).mean(axis=0))
            cosine = float(vectors[row] @ others)
            if cosine < self.min_agreement:
                text = (
                    f"{recording.name}: unlike the other enrolment recordings (cosine "
                    f"{cosine:.2f}, expected at least "
                    f"{self.min_agreement:g}); is it the same speaker, recorded well?"
                )
                found.append(Reason("inconsistent_enrolment", text))
        return found
