"""Enrolment, verification, and identification: ``sasv.runtime.Verifier("model.onnx")``. PyTorch is
not needed.
"""

import base64
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sasv.core.errors import SasvError, Undecided
from sasv.core.files import parse_json, read_bytes, write_text
from sasv.core.part_options import checked
from sasv.decision import Decision, Recording, SpeechLimits
from sasv.runtime.embedder import Embedder, Speech
from sasv.runtime.model import OnnxModel
from sasv.runtime.windows import WINDOW_SECONDS, Windows, any_recording
from sasv.scores import Cohort

FORMAT = 1

MEASURES = ("net_speech", "share", "level", "snr", "clipped", "bandwidth", "agreement")
"""Properties of a recording that a voiceprint keeps, so that a decision on one that was stored is
the same as in the process that enrolled it.
"""


@dataclass(frozen=True)
class Voiceprint:
    """An enrolled speaker.

    Attributes:
        recordings: embedding and measurements of each enrolment recording, without its audio.
        model: fingerprint of the model that made the embeddings.
        speaker: name of the speaker; may be empty.
    """

    recordings: tuple[Recording, ...]
    model: str
    speaker: str = ""

    @property
    def net_speech(self) -> float:
        """Seconds of speech in the enrolment recordings."""
        return sum(recording.net_speech or 0.0 for recording in self.recordings)

    def to_json(self) -> str:
        """Return the voiceprint as JSON."""
        recordings = []
        for recording in self.recordings:
            assert recording.vector is not None
            vector = np.asarray(recording.vector, "<f4").tobytes()
            recordings.append(
                {
                    "name": recording.name,
                    "seconds": recording.seconds,
                    **{measure: _finite(getattr(recording, measure)) for measure in MEASURES},
                    "vector": base64.b64encode(vector).decode("ascii"),
                }
            )
        values = {
            "format": FORMAT,
            "speaker": self.speaker,
            "model": self.model,
            "recordings": recordings,
        }
        return json.dumps(values, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, name: str = "voiceprint") -> "Voiceprint":
        """Make a voiceprint from the result of ``to_json``. Raises SasvError for anything else."""
        try:
            values = checked(parse_json(text), dict[str, Any], "voiceprint")
            if values["format"] != FORMAT:
                raise SasvError(f"format {values['format']} is not known; upgrade sasv")
            recordings = []
            for one in checked(values["recordings"], list[dict[str, Any]], "recordings"):
                vector = np.frombuffer(base64.b64decode(one["vector"], validate=True), "<f4")
                if not len(vector) or not np.isfinite(vector).all():
                    raise SasvError("an embedding is empty or not finite")
                # Older voiceprints contain fewer of them, but all contain the speech.
                known = {"net_speech": one["net_speech"]} | one
                measured = {measure: _measure(known.get(measure), measure) for measure in MEASURES}
                recordings.append(
                    Recording(
                        name=checked(one["name"], str, "name"),
                        vector=vector,
                        seconds=checked(one["seconds"], float, "seconds"),
                        **measured,
                    )
                )
            model = checked(values["model"], str, "model")
            speaker = checked(values["speaker"], str, "speaker")
        except (SasvError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise SasvError(
                f"{name}: this is not a voiceprint ({error}); enrol the speaker again"
            ) from error
        return cls(tuple(recordings), model, speaker)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the voiceprint. It is biometric data, so protect the file accordingly."""
        write_text(path, self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Voiceprint":
        """Read a voiceprint that ``save`` wrote."""
        name = os.fspath(path)
        return cls.from_json(read_bytes(path).decode("utf-8", "replace"), name)


def _finite(value: float | None) -> float | None:
    """Return a value for JSON, None in place of one that is not finite (the level of silence)."""
    return float(value) if value is not None and np.isfinite(value) else None


def _measure(value: Any, name: str) -> float | None:
    """Return a measure of a stored voiceprint; every verification by a service reads some twenty of
    them. Raises SasvError if it is no number.
    """
    if value is None or type(value) is float:  # which ``parse_json`` found to be finite
        return value
    found: float = checked(value, float, name)
    return found


@dataclass(frozen=True)
class Candidate:
    """A candidate for the speaker of a recording.

    Attributes:
        speaker: name of the voiceprint.
        decision: decision on the recording against this voiceprint alone.
    """

    speaker: str
    decision: Decision


class Verifier:
    """Enrols speakers, and decides on recordings.

    Attributes:
        embedder: the model.
        decider: scoring, calibration, threshold, and limits; the same object decides in the rest of
            sasv.
        voiceprints: speaker -> voiceprint, for all that were enrolled or added with a name.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Embedder,
        threads: int = 0,
        threshold: float | None = None,
        limits: SpeechLimits | None = None,
        cohort: Cohort | None = None,
    ) -> None:
        """Load a model.

        Args:
            model: ONNX file that ``sasv export`` wrote, or a loaded model.
            threads: number of threads for each call; 0 means one for each core.
            threshold: score from which a recording is accepted, instead of the threshold of the
                model.
            limits: requirements on recordings, instead of those of the model.
            cohort: cohort of s-norm, if the model names one.
        """
        self.embedder = model if isinstance(model, Embedder) else OnnxModel(model, threads)
        self.decider = self.embedder.verifier(cohort)
        if threshold is not None:
            self.decider = self.decider.with_threshold(threshold)
        if limits is not None:
            self.decider = replace(self.decider, limits=limits)
        self.voiceprints: dict[str, Voiceprint] = {}

    def enrol(self, recordings: Sequence[Speech], speaker: str = "") -> Voiceprint:
        """Return the voiceprint of a speaker, and store it for ``identify`` if it has a name.

        Args:
            recordings: paths, or waveforms (samples,) at the sample rate of the model.
            speaker: name of the speaker.

        Raises:
            SasvError: a recording contains too little speech, or its quality is too low.
        """
        found = [self.recording(one, f"recording {row + 1}") for row, one in enumerate(recordings)]
        self.decider.limits.check_enrolment(found)
        voiceprint = Voiceprint(tuple(found), self.embedder.fingerprint, speaker)
        if speaker:
            self.voiceprints[speaker] = voiceprint
        return voiceprint

    def add(self, voiceprint: Voiceprint) -> None:
        """Store a voiceprint for ``identify``. Raises SasvError if it has no name or was made by
        another model.
        """
        if not voiceprint.speaker:
            raise SasvError("a voiceprint needs the name of its speaker to be stored")
        self._check(voiceprint)
        self.voiceprints[voiceprint.speaker] = voiceprint

    def verify(self, voiceprint: Voiceprint, speech: Speech) -> Decision:
        """Decide whether a recording is bona fide speech of an enrolled speaker.

        Raises:
            SasvError: the voiceprint was made by another model, or there is no threshold.
            AudioError: the recording cannot be read.
        """
        self._check(voiceprint)
        return self.decider.decide(voiceprint.recordings, self.recording(speech))

    def identify(self, speech: Speech, top: int = 5) -> list[Candidate]:
        """Return the enrolled speakers whose voices are most similar to a recording, the most
        similar first.

        Each decision is that on a claim to be this speaker. With many speakers, a wrong one is
        accepted more often than in a single claim.

        Args:
            speech: path, or waveform (samples,) at the sample rate of the model.
            top: maximum number of speakers.

        Raises:
            Undecided: the recording cannot be compared.
        """
        test = self.recording(speech)
        faults = self.decider.limits.faults(test)
        if faults:
            why = "; ".join(reason.text for reason in faults)
            raise Undecided(f"nothing was compared: {why}", test.to_dict())
        found = [
            Candidate(name, self.decider.decide(voiceprint.recordings, test))
            for name, voiceprint in self.voiceprints.items()
        ]
        found.sort(key=lambda one: one.decision.scores.get("sasv", -np.inf), reverse=True)
        return found[:top]

    def stream(self, voiceprint: Voiceprint, every: float = 1.0) -> "Stream":
        """Return a verification of speech that arrives in pieces (see Stream)."""
        self._check(voiceprint)
        return Stream(self, voiceprint, every)

    def recording(self, speech: Speech, name: str = "waveform") -> Recording:
        """Return the input of the decision for a recording. Files that are too long for the model
        are embedded in windows.
        """
        return any_recording(self.embedder, speech, self.decider.limits, name)

    def _check(self, voiceprint: Voiceprint) -> None:
        if voiceprint.model != self.embedder.fingerprint:
            named = f" of {voiceprint.speaker}" if voiceprint.speaker else ""
            raise SasvError(
                f"the voiceprint{named} was made by another model; enrol the speaker again with "
                f"{self.embedder.name}"
            )


class Stream:
    """The verification of speech that arrives in pieces.

    A decision is always based on all speech so far. For less than a window (20 s), it equals that
    of ``Verifier.verify`` on the same samples; for more, the windows are averaged. It is updated
    after every ``every`` seconds of further audio.

    Attributes:
        decision: the decision so far.
    """

    SETTLED_DECISIONS = 3
    SETTLED_SCORE = 0.05

    def __init__(self, verifier: Verifier, voiceprint: Voiceprint, every: float = 1.0) -> None:
        """Begin a stream.

        Args:
            verifier: makes the decisions.
            voiceprint: voiceprint of the claimed speaker.
            every: seconds of audio between two decisions.
        """
        if not every > 0:
            raise SasvError(
                f"the time between decisions is {every} s; give a positive number of seconds"
            )
        self.verifier = verifier
        self.voiceprint = voiceprint
        self.windows = Windows(verifier.embedder, verifier.decider.limits, WINDOW_SECONDS)
        self.step = max(1, round(every * self.windows.rate))
        self.last: list[Decision] = []
        self.due = self.step
        self.decision = self._decided()

    @property
    def settled(self) -> bool:
        """Whether verdict and score hardly changed over the last decisions, so that more speech is
        not needed.
        """
        last = self.last[-self.SETTLED_DECISIONS :]
        if len(last) < self.SETTLED_DECISIONS or not all(one.scores for one in last):
            return False
        scores = [one.scores["sasv"] for one in last]
        agree = len({one.outcome for one in last}) == 1
        return agree and max(scores) - min(scores) <= self.SETTLED_SCORE

    def feed(self, samples: np.ndarray) -> Decision:
        """Add samples (see Windows.feed) and return the decision so far."""
        wave = np.asarray(samples)
        while len(wave):
            taken = wave[: max(1, self.due - self.windows.heard)]
            self.windows.feed(taken)
            wave = wave[len(taken) :]
            if self.windows.heard >= self.due:
                self.due = self.windows.heard + self.step
                self._decide()
        return self.decision

    def finish(self) -> Decision:
        """Return the decision on all samples."""
        self._decide()
        return self.decision

    def _decide(self) -> None:
        self.decision = self._decided()
        self.last = [*self.last[-self.SETTLED_DECISIONS :], self.decision]

    def _decided(self) -> Decision:
        recording = self.windows.recording()
        return self.verifier.decider.decide(self.voiceprint.recordings, recording)
