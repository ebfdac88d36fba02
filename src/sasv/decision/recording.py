"""What a decision needs to know about a recording, and the requirements that a recording must meet
to be compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from sasv.calibration.narrow_band import NARROW_HZ
from sasv.core.errors import SasvError
from sasv.decision.outcome import Reason
from sasv.scores.directions import unit, without_direction
from sasv.scores.quality import Bandwidths, enrolment_bandwidth

QUIET_LEVEL = -50.0
"""A recording below this level (dBFS) is so quiet that its score with itself 20 dB louder falls
clearly.
"""


@dataclass(frozen=True)
class Recording:
    """The embedding and the properties of a recording. A property is None if it was not measured.

    Attributes:
        name: name for messages, usually the path.
        vector: (dimension,), raw embedding; None if the recording was not embedded because it must
            not be compared.
        seconds: length of the audio that was embedded, in seconds.
        net_speech: amount of speech in seconds.
        share: share of the whole recording that is speech, in [0, 1].
        level: root mean square of the whole recording, in dB relative to full scale.
        snr: signal-to-noise ratio in dB.
        clipped: share of the samples that are clipped, in [0, 1].
        bandwidth: highest frequency in the speech, in Hz.
        agreement: how similar the speech before and after the point is at which the two differ
            most (see ``sasv.runtime.embedder.self_agreement``).
    """

    name: str
    vector: np.ndarray | None
    seconds: float
    net_speech: float | None = None
    share: float | None = None
    level: float | None = None
    snr: float | None = None
    clipped: float | None = None
    bandwidth: float | None = None
    agreement: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the properties as JSON values, without the embedding. A level of -inf (silence)
        becomes None.
        """
        level = None if self.level is None or not np.isfinite(self.level) else round(self.level, 2)
        return {
            "recording": self.name,
            "seconds_compared": round(self.seconds, 3) if self.vector is not None else 0.0,
            "net_speech": None if self.net_speech is None else round(self.net_speech, 3),
            "speech_share": None if self.share is None else round(self.share, 4),
            "level_dbfs": level,
            "snr_db": None if self.snr is None else round(self.snr, 1),
            "clipped_share": None if self.clipped is None else round(self.clipped, 4),
            "bandwidth_hz": None if self.bandwidth is None else round(self.bandwidth),
        }


SIGNED = (
    "min_agreement",
    "min_self_agreement",
    "min_narrow_self_agreement",
    "min_snr",
    "min_level",
)
"""Limits that may be negative."""

OPTIONAL = ("max_pause", "min_self_agreement", "min_narrow_self_agreement")
"""Limits that may be None."""


@dataclass(frozen=True)
class SpeechLimits:
    """The requirements that recordings must meet to be compared, and how much silence around speech
    is kept.

    Attributes:
        min_enrolment: minimum amount of speech in all enrolment recordings together, in seconds.
        min_test: minimum amount of speech in the test recording and in each enrolment recording, in
            seconds.
        max_pause: pauses are shortened to this many seconds before embedding, so that silence
            around speech cannot change a verdict; None keeps them.
        min_agreement: minimum cosine of an enrolment recording with the mean of the others; below
            it there is a warning.
        min_snr: minimum signal-to-noise ratio in dB.
        max_clipped: maximum share of clipped samples, in [0, 1].
        min_bandwidth: minimum bandwidth of speech in Hz.
        min_level: minimum level in dB relative to full scale.
        min_self_agreement: minimum mean cosine between the embeddings of windows of speech before
            and after any point in time, below which the recording is assumed to have several
            speakers. A suitable value depends on the model; None, the default, does not check this.
        min_narrow_self_agreement: the same for narrow-band speech, in which different voices are
            more similar; None uses the value for other speech.
    """

    min_enrolment: float = 1.0
    min_test: float = 0.75
    max_pause: float | None = 0.5
    min_agreement: float = 0.5
    min_snr: float = 0.0
    max_clipped: float = 0.1
    min_bandwidth: float = 2500.0
    min_level: float = -65.0
    min_self_agreement: float | None = None
    min_narrow_self_agreement: float | None = None

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if value is None and entry.name in OPTIONAL:
                continue
            if not isinstance(value, int | float) or not np.isfinite(value):
                raise SasvError(f"{entry.name} is {value}; it must be a finite number")
            if value < 0 and entry.name not in SIGNED:
                raise SasvError(f"{entry.name} is {value:g}; it must be at least 0")
        if self.min_self_agreement is None and self.min_narrow_self_agreement is not None:
            raise SasvError("min_narrow_self_agreement needs min_self_agreement, for other speech")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "SpeechLimits":
        """Make limits from JSON values.

        Raises:
            SasvError: a limit is unknown, or its value is impossible.
        """
        known = {entry.name for entry in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise SasvError(
                f"unknown limits of speech: {', '.join(unknown)}; the limits are: "
                f"{', '.join(sorted(known))}"
            )
        return cls(**values)

    def faults(self, recording: Recording) -> list[Reason]:
        """Return the reasons why a recording must not be compared; empty if it may be."""
        if recording.net_speech is not None and recording.net_speech < self.min_test:
            if recording.net_speech == 0:
                return [Reason("no_speech", f"{recording.name}: no speech was found in it", True)]
            text = (
                f"{recording.name}: {recording.net_speech:.2f} s of speech, at least "
                f"{self.min_test:g} s are needed"
            )
            return [Reason("too_little_speech", text, True)]
        poor = self.quality_faults(recording)
        if poor:
            return poor
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

    def quality_faults(self, recording: Recording) -> list[Reason]:
        """Return the reasons why the quality of a recording is too low for a comparison. Properties
        that were not measured are ignored.
        """
        name = recording.name
        found = []
        if recording.level is not None and recording.level < self.min_level:
            text = f"{name}: too quiet ({recording.level:.0f} dBFS, below {self.min_level:g})"
            found.append(Reason("too_quiet", text, True))
        if recording.snr is not None and recording.snr < self.min_snr:
            text = f"{name}: too noisy (SNR {recording.snr:.0f} dB, below {self.min_snr:g})"
            found.append(Reason("too_noisy", text, True))
        if recording.clipped is not None and recording.clipped > self.max_clipped:
            text = (
                f"{name}: clipped ({100 * recording.clipped:.0f} % of the samples, more than "
                f"{100 * self.max_clipped:g} %); record at a lower level"
            )
            found.append(Reason("clipped", text, True))
        if recording.bandwidth is not None and recording.bandwidth < self.min_bandwidth:
            text = (
                f"{name}: too narrow a band ({recording.bandwidth:.0f} Hz, below "
                f"{self.min_bandwidth:g} Hz)"
            )
            found.append(Reason("narrow_band", text, True))
        least = self._least_agreement(recording.bandwidth)
        if recording.agreement is not None and least is not None and recording.agreement < least:
            text = (
                f"{name}: more than one speaker (cosine {recording.agreement:.2f} between one part "
                f"of the speech and the rest, expected at least {least:g})"
            )
            found.append(Reason("more_than_one_speaker", text, True))
        return found

    def _least_agreement(self, bandwidth: float | None) -> float | None:
        """Return the minimum agreement of a recording with itself; None if it is not checked."""
        narrow = bandwidth is not None and bandwidth < NARROW_HZ
        if narrow and self.min_narrow_self_agreement is not None:
            return self.min_narrow_self_agreement
        return self.min_self_agreement

    def enrolment_faults(self, recordings: Sequence[Recording]) -> list[Reason]:
        """Return the reasons why recordings together cannot enrol a speaker; empty if they can."""
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

    def check_enrolment(self, recordings: Sequence[Recording]) -> None:
        """Check that recordings together can enrol a speaker.

        Raises:
            SasvError: they cannot; the message says why.
        """
        faults = self.enrolment_faults(recordings)
        if faults:
            raise SasvError("; ".join(reason.text for reason in faults))

    def warnings(self, recordings: Sequence[Recording]) -> list[Reason]:
        """Return warnings that do not prevent a comparison: recordings that are very quiet."""
        return [
            Reason(
                "quiet_recording",
                f"{recording.name}: very quiet ({recording.level:.0f} dBFS); scores of such "
                "recordings are lower, record it louder",
            )
            for recording in recordings
            if recording.level is not None and recording.level < QUIET_LEVEL
        ]

    def disagreements(self, recordings: Sequence[Recording]) -> list[Reason]:
        """Return a warning for each enrolment recording whose embedding is far from those of the
        others; empty for fewer than two recordings.
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


def bandwidths_of(enrolment: Sequence[Recording], test: Recording) -> Bandwidths:
    """Return the bandwidths of the two sides of a trial; infinite where they were not measured."""
    tested = np.inf if test.bandwidth is None else test.bandwidth
    enrolled = enrolment_bandwidth([recording.bandwidth for recording in enrolment])
    return Bandwidths(np.array(tested), np.array(enrolled))


ANY_SPEECH = SpeechLimits(
    min_enrolment=0.0,
    min_test=0.0,
    min_snr=-1e9,
    max_clipped=1.0,
    min_bandwidth=0.0,
    min_level=-1e9,
)
"""Limits that every recording meets, for measurements that refer to all recordings."""
