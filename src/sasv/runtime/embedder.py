"""Computes embeddings from speech, whether the network is run by PyTorch (``sasv.embeddings``) or
by ONNX Runtime (``sasv.runtime.model``). This module does not need PyTorch.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import soxr

from sasv.audio import AUTO, check_channel, check_speech, read_speech
from sasv.audio.quality import quality
from sasv.audio.speech import SpeechActivity, net_speech, shorten_pauses
from sasv.core.errors import AudioError, SasvError
from sasv.decision import Recording, SpeechLimits, Verifier
from sasv.models import Specification
from sasv.scores import Cohort, ThreeClass, unit

MAX_SECONDS = 300.0
"""Longest utterance that is embedded in one piece."""

SPEAKER_SECONDS = 2.0
"""Seconds of speech in each of the windows that are compared to find a second speaker."""

CROPS_AT_ONCE = 32
"""Maximum number of crops of a recording in one batch, which limits the memory."""

Speech = str | os.PathLike[str] | npt.ArrayLike
"""A path, or a waveform (samples,) with values in [-1, 1] at the sample rate of the model."""


@dataclass(frozen=True)
class Extraction:
    """How an utterance becomes an embedding.

    Attributes:
        max_seconds: longer recordings are refused.
        crops: number of crops per utterance, whose normalised embeddings are averaged (multi-crop
            scoring, see crop_vectors); 0 embeds whole utterances.
        crop_seconds: length of a crop; shorter utterances are repeated to reach it.
        max_pause: stretches without speech are first shortened to this many seconds; None embeds
            whole utterances.
        channel: channel to use of recordings with several: auto (the mean, or the loudest channel
            if the channels cancel each other), mean, loudest, or a number counted from 0.
    """

    max_seconds: float = MAX_SECONDS
    crops: int = 0
    crop_seconds: float = 4.0
    max_pause: float | None = None
    channel: str = AUTO

    @classmethod
    def of(cls, scoring: Mapping[str, Any]) -> "Extraction":
        """Return the settings from a record of how scores are made (see Scoring.to_dict)."""
        known = {
            name: scoring[name]
            for name in ("crops", "crop_seconds", "max_pause")
            if name in scoring
        }
        return cls(**known)

    def __post_init__(self) -> None:
        check_channel(self.channel)
        if self.crops < 0:
            raise SasvError(
                f"the number of crops is {self.crops}; give 0 for whole utterances, or a positive "
                "number"
            )
        for name in ("max_seconds", "crop_seconds"):
            if not 0 < getattr(self, name) < np.inf:
                raise SasvError(
                    f"{name} is {getattr(self, name)}; it must be a positive number of seconds"
                )
        if self.max_pause is not None and not 0 <= self.max_pause < np.inf:
            raise SasvError(
                f"max_pause is {self.max_pause}; it must be a number of seconds, at least 0"
            )


class Embedder:
    """A network with its specification, ready to embed speech.

    A subclass sets the attributes and implements ``embed_whole``, ``dimension``, ``fingerprint``,
    and ``three_class``.

    Attributes:
        specification: metadata of the model.
        name: name of the model, for messages.
        extraction: how an utterance becomes an embedding.
    """

    specification: Specification
    name: str
    extraction: Extraction

    @property
    def dimension(self) -> int:
        """Dimension of the embeddings."""
        raise NotImplementedError

    @property
    def fingerprint(self) -> str:
        """Digest of the network and all its weights. Embeddings can be compared if their models
        have the same fingerprint.
        """
        raise NotImplementedError

    def embed_whole(self, waves: Sequence[np.ndarray]) -> np.ndarray:
        """Embed checked waveforms of any lengths, each as a whole: float32 (files, dimension)."""
        raise NotImplementedError

    def three_class(self) -> ThreeClass | None:
        """Return the classes by which a model with the three-class loss decides, or None for
        another model.
        """
        raise NotImplementedError

    def read(self, speech: Speech, name: str = "waveform", channel: str = AUTO) -> np.ndarray:
        """Return checked mono samples of a file (of any format and sample rate) or of a waveform
        (at the sample rate of the model).

        Raises:
            AudioError: unreadable, too short, too long, silent, or not finite.
        """
        wave = self._read_whole(speech, name, channel)
        if self.extraction.max_pause is None:
            return wave
        return self._shortened(
            wave, net_speech(wave, self.specification.sample_rate), self.extraction.max_pause
        )

    def _shortened(
        self, wave: np.ndarray, activity: SpeechActivity, max_pause: float | None
    ) -> np.ndarray:
        """Return a waveform with its pauses shortened, or the whole waveform if too little would
        remain to be embedded.
        """
        if max_pause is None:
            return wave
        shortened = shorten_pauses(wave, activity.spans, max_pause, self.specification.sample_rate)
        return shortened if len(shortened) >= self.specification.min_samples else wave

    def _read_whole(self, speech: Speech, name: str, channel: str = AUTO) -> np.ndarray:
        """Return checked samples, with pauses. For ``auto``, ``extraction`` sets the channel."""
        spec = self.specification
        if channel == AUTO:
            channel = self.extraction.channel
        if isinstance(speech, str | os.PathLike):
            return read_speech(
                speech, spec.min_samples, self.extraction.max_seconds, spec.sample_rate, channel
            )
        wave = self._samples(speech)
        if wave.ndim == 1 and len(wave) > self.extraction.max_seconds * spec.sample_rate:
            seconds = len(wave) / spec.sample_rate
            raise AudioError(
                f"{name}: the recording lasts {seconds:.0f} s, more than the limit of "
                f"{self.extraction.max_seconds:.0f} s"
            )
        return check_speech(wave, name, spec.min_samples, spec.sample_rate)

    def _samples(self, speech: Speech) -> np.ndarray:
        """Return the samples of a waveform, float32."""
        return np.asarray(speech, dtype=np.float32)

    def embed(self, speech: Speech, rate: int | None = None) -> np.ndarray:
        """Return the raw embedding, float32 of shape (dimension,), of an audio file or of a
        waveform.

        Args:
            speech: a path, or a waveform of shape (samples,), values in [-1, 1].
            rate: sample rate of a waveform in Hz, if it is not that of the model (16 kHz).
        """
        if rate is not None and not isinstance(speech, str | os.PathLike):
            speech = soxr.resample(
                np.asarray(speech, np.float32), rate, self.specification.sample_rate
            )
        vector = self.embed_many([self.read(speech)])[0]
        if not np.isfinite(vector).all():
            named = os.fspath(speech) if isinstance(speech, str | os.PathLike) else "waveform"
            raise AudioError(
                f"{named}: its embedding by {self.name} is not finite; check the audio and the "
                "model"
            )
        return vector

    def embed_many(self, waves: Sequence[np.ndarray]) -> np.ndarray:
        """Embed checked waveforms of any lengths in one batch: float32 (files, dimension), equal to
        single calls.
        """
        if self.extraction.crops:
            return crop_vectors(np.stack([self._embed_crops(wave) for wave in waves]))
        return self.embed_whole(waves)

    def _embed_crops(self, wave: np.ndarray) -> np.ndarray:
        """Return the embeddings (crops, dimension) of crops at evenly spaced starts."""
        size = max(
            self.specification.min_samples,
            round(self.extraction.crop_seconds * self.specification.sample_rate),
        )
        wave = np.resize(wave, max(len(wave), size))
        starts = np.linspace(0, len(wave) - size, self.extraction.crops).astype(int)
        crops = [wave[start : start + size] for start in starts]
        return self._embed_in_batches(crops)

    def _embed_in_batches(self, crops: list[np.ndarray]) -> np.ndarray:
        """Return the embeddings (crops, dimension) of any number of crops."""
        return np.concatenate(
            [
                self.embed_whole(crops[first : first + CROPS_AT_ONCE])
                for first in range(0, len(crops), CROPS_AT_ONCE)
            ]
        )

    def verifier(self, cohort: Cohort | None = None) -> Verifier:
        """Return the verifier for the scores of this model, as recorded in its specification.

        Args:
            cohort: cohort of s-norm, if the specification names one.
        """
        specification = self.specification
        return Verifier.from_records(
            specification.scoring, specification.decision, cohort, self.name, self.three_class()
        )

    def recording(
        self, speech: Speech, limits: SpeechLimits | None = None, name: str = "waveform"
    ) -> Recording:
        """Measure the speech in a recording, shorten its pauses, and embed it. The result is the
        input of a verifier.

        Args:
            speech: a path, or a waveform (samples,) at the sample rate of the model.
            limits: requirements on the amount and the quality of the speech, and on the length of
                pauses; by default, SpeechLimits(). A recording that does not meet them is not
                embedded.
            name: name of a waveform, for messages.

        Raises:
            AudioError: unreadable, too short, too long, silent, or not finite.
        """
        if isinstance(speech, str | os.PathLike):
            name = os.fspath(speech)
        return self.measured(self._read_whole(speech, name), limits or SpeechLimits(), name)

    def measured(self, whole: np.ndarray, limits: SpeechLimits, name: str) -> Recording:
        """Return the input of a verifier for checked samples (see ``recording``)."""
        rate = self.specification.sample_rate
        activity = net_speech(whole, rate)
        found = quality(whole, activity, rate)
        recording = Recording(
            name=name,
            vector=None,
            seconds=len(whole) / rate,
            net_speech=activity.net_seconds,
            share=activity.share,
            level=activity.level,
            snr=None if found is None else found.snr,
            clipped=None if found is None else found.clipped,
            bandwidth=None if found is None else found.bandwidth,
        )
        too_little = activity.net_seconds < limits.min_test
        if too_little or limits.quality_faults(recording):
            return recording
        own = self.extraction.max_pause
        wave = self._shortened(whole, activity, limits.max_pause if own is None else own)
        agreement = None
        if limits.min_self_agreement is not None:
            agreement = self._self_agreement(wave, activity.net_seconds)
        vector = self.embed_many([wave])[0]
        return replace(recording, vector=vector, seconds=len(wave) / rate, agreement=agreement)

    def _self_agreement(self, wave: np.ndarray, net_seconds: float) -> float | None:
        """Return the agreement of a recording with itself; None if there is too little speech."""
        count = int(net_seconds / SPEAKER_SECONDS)
        if count < 2:
            return None
        return self_agreement(self._embed_in_batches(np.array_split(wave, count)))

    def bandwidth(self, speech: Speech, channel: str = AUTO) -> float | None:
        """Return the highest frequency in the speech of a recording, in Hz, as a verification
        measures it; None if there is no speech.

        Args:
            speech: a path, or a waveform (samples,) at the sample rate of the model.
            channel: as in ``read``.

        Raises:
            AudioError: see ``read``.
        """
        rate = self.specification.sample_rate
        whole = self._read_whole(speech, "waveform", channel)
        found = quality(whole, net_speech(whole, rate), rate)
        return None if found is None else found.bandwidth

    def enrol(self, recordings: Sequence[Speech], limits: SpeechLimits | None = None) -> np.ndarray:
        """Return a speaker's voiceprint: the mean of the raw embeddings of all enrolment
        recordings.

        Args:
            recordings: paths, or waveforms at the sample rate of the model.
            limits: see ``recording``.

        Raises:
            SasvError: a recording contains too little speech, or its embedding is not finite.
        """
        limits = limits or SpeechLimits()
        found = [self.recording(one, limits) for one in recordings]
        limits.check_enrolment(found)
        return np.mean([one.vector for one in found if one.vector is not None], axis=0)

    def score(self, enrolment: np.ndarray, test: np.ndarray) -> float:
        """Return the cosine of two embeddings, in [-1, 1]. Higher values mean bona fide speech of
        the claimed speaker.

        Raises:
            SasvError: one of the embeddings is zero or not finite.
        """
        return Verifier().score([enrolment], test)


def padded_batch(waves: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return waveforms as one batch, float32 (files, samples), padded with zeros, and their
    lengths, int64 (files,).
    """
    lengths = np.array([len(wave) for wave in waves], np.int64)
    batch = np.zeros((len(waves), lengths.max()), np.float32)
    for row, wave in zip(batch, waves):
        row[: len(wave)] = wave
    return batch, lengths


def crop_vectors(crops: np.ndarray) -> np.ndarray:
    """Return the mean of the normalised embeddings (utterances, crops, dimension): (utterances,
    dimension).

    The inner product of two such vectors is the mean cosine over all pairs of their crops.
    """
    return unit(crops).mean(axis=1)


def self_agreement(windows: np.ndarray) -> float:
    """Return how similar the speech before and after a point in time is, at the point where it is
    least similar: the mean cosine of the windows before with those after it, in [-1, 1].

    Unlike the cosine of two means, its expected value does not depend on the number of windows.

    Args:
        windows: (windows, dimension), raw embeddings in order of time; at least two.
    """
    directions = unit(np.asarray(windows, np.float64))
    sums = directions.cumsum(axis=0)
    before = sums[:-1]
    after = sums[-1] - before
    counts = np.arange(1, len(directions))
    means = (before * after).sum(axis=1) / (counts * counts[::-1])
    return float(means.min())
