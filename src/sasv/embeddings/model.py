"""A model ready to use: ``load_model(path).embed(path_or_waveform)``."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import soxr
import torch
from torch import Tensor

from sasv.audio import AUTO, check_channel, check_speech, read_speech
from sasv.audio.speech import SpeechActivity, net_speech, shorten_pauses
from sasv.checkpoints import Checkpoint, load_checkpoint, spawn_encoder
from sasv.core.errors import AudioError, SasvError
from sasv.core.files import digest_of_bytes
from sasv.decision import Recording, SpeechLimits, Verifier
from sasv.encoders.base import lengths_tensor, parameters_of
from sasv.encoders.inference import prepare_for_inference
from sasv.losses import LOSSES
from sasv.losses.base import Loss
from sasv.parallel.devices import pick_device
from sasv.scores import Cohort, SpoofHead, ThreeClass, TrialClasses, unit

MAX_SECONDS = 300.0
"""Longest utterance that is embedded in one piece."""
SINGLY_FROM = 2_000_000
"""Parameters from which a CPU embeds the waveforms of a batch one after another.

A batch of a large network leaves the cache, and its padding costs arithmetic and masks; a small
network is bound by the calls that a batch saves.
"""


@dataclass(frozen=True)
class Extraction:
    """How an utterance becomes an embedding.

    Attributes:
        max_seconds: longer recordings are refused.
        crops: where not 0, an utterance is embedded as so many crops, and its embedding is the mean
            of theirs, normalised (multi-crop: see crop_vectors).
        crop_seconds: length of a crop; shorter utterances are repeated up to it.
        max_pause: longer stretches without speech are first cut down to so many seconds; None
            embeds whole utterances.
        channel: of recordings with several channels: auto (the mean, or the loudest where they
            cancel), mean, loudest, or a number from 0 on.
    """

    max_seconds: float = MAX_SECONDS
    crops: int = 0
    crop_seconds: float = 4.0
    max_pause: float | None = None
    channel: str = AUTO

    @classmethod
    def of(cls, scoring: Mapping[str, Any]) -> "Extraction":
        """Return that of a record of how scores are made (see Scoring.to_dict)."""
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
                f"{self.crops} crops: take 0 for whole utterances, or a positive number"
            )
        for name in ("max_seconds", "crop_seconds"):
            if not 0 < getattr(self, name) < np.inf:
                raise SasvError(
                    f"{name} is {getattr(self, name)}; it has to be a positive number of seconds"
                )
        if self.max_pause is not None and not 0 <= self.max_pause < np.inf:
            raise SasvError(
                f"max_pause is {self.max_pause}; it has to be a number of seconds from 0 on"
            )


Speech = str | os.PathLike[str] | np.ndarray | Tensor


class Model:
    """An encoder in evaluation mode with its specification.

    Attributes:
        specification: metadata of the checkpoint.
        encoder: the torch module.
        device: where it runs.
        singly: whether the waveforms of a batch are embedded one after another.
        extraction: how an utterance becomes an embedding; left out, as the specification says of
            its scores.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: str | torch.device = "cpu",
        extraction: Extraction | None = None,
    ):
        self.specification = checkpoint.specification
        self.name = checkpoint.name
        self.head = checkpoint.head
        self.extraction = extraction or Extraction.of(self.specification.scoring)
        self.device = torch.device(device)
        self.encoder = spawn_encoder(checkpoint).to(self.device).eval()
        self.singly = False
        if self.device.type == "cpu":
            prepare_for_inference(self.encoder)
            self.singly = parameters_of(self.encoder) >= SINGLY_FROM

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the specification's encoder and of all its weights."""
        parts = [
            value.detach().cpu().numpy().tobytes() for value in self.encoder.state_dict().values()
        ]
        return digest_of_bytes(self.specification.encoder, *parts)

    @property
    def dimension(self) -> int:
        """Dimension of the embeddings."""
        return self.encoder.dimension

    def read(self, speech: Speech, name: str = "waveform", channel: str = AUTO) -> np.ndarray:
        """Return checked mono samples of a file (any format and rate) or of a waveform (already at
        the model's rate).

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
        """Return a waveform with its pauses cut down, or whole where too little would be left to
        embed.
        """
        if max_pause is None:
            return wave
        shortened = shorten_pauses(wave, activity.spans, max_pause, self.specification.sample_rate)
        return shortened if len(shortened) >= self.specification.min_samples else wave

    def _read_whole(self, speech: Speech, name: str, channel: str = AUTO) -> np.ndarray:
        """Return checked samples, nothing cut away; ``auto`` leaves the channel to
        ``extraction``.
        """
        spec = self.specification
        if channel == AUTO:
            channel = self.extraction.channel
        if isinstance(speech, str | os.PathLike):
            return read_speech(
                speech, spec.min_samples, self.extraction.max_seconds, spec.sample_rate, channel
            )
        wave = np.asarray(
            speech.detach().cpu() if isinstance(speech, Tensor) else speech, dtype=np.float32
        )
        if wave.ndim == 1 and len(wave) > self.extraction.max_seconds * spec.sample_rate:
            seconds = len(wave) / spec.sample_rate
            raise AudioError(
                f"{name}: {seconds:.0f} s long, over the limit of "
                f"{self.extraction.max_seconds:.0f} s"
            )
        return check_speech(wave, name, spec.min_samples, spec.sample_rate)

    def embed(self, speech: Speech, rate: int | None = None) -> np.ndarray:
        """Return the raw embedding, float32 of shape (dimension,), of an audio file or of a
        waveform.

        Args:
            speech: a path, or a waveform of shape (samples,), values in [-1, 1].
            rate: samples per second of a waveform, where it is not the model's (16 kHz).
        """
        if rate is not None and not isinstance(speech, str | os.PathLike):
            speech = soxr.resample(
                np.asarray(speech, np.float32), rate, self.specification.sample_rate
            )
        vector = self.embed_many([self.read(speech)])[0]
        if not np.isfinite(vector).all():
            named = os.fspath(speech) if isinstance(speech, str | os.PathLike) else "waveform"
            raise AudioError(
                f"{named}: the embedding by {self.name} is not finite; check the audio and the "
                "model"
            )
        return vector

    def embed_many(self, waves: Sequence[np.ndarray]) -> np.ndarray:
        """Embed checked waveforms of any lengths in one batch: float32 (files, dimension), equal to
        single calls.
        """
        if self.extraction.crops:
            return crop_vectors(np.stack([self._embed_crops(wave) for wave in waves]))
        return self._embed(waves)

    def _embed_crops(self, wave: np.ndarray) -> np.ndarray:
        """Return the embeddings (crops, dimension) of crops at evenly spaced starts."""
        size = max(
            self.specification.min_samples,
            round(self.extraction.crop_seconds * self.specification.sample_rate),
        )
        wave = np.resize(wave, max(len(wave), size))
        starts = np.linspace(0, len(wave) - size, self.extraction.crops).astype(int)
        return self._embed([wave[start : start + size] for start in starts])

    def _embed(self, waves: Sequence[np.ndarray]) -> np.ndarray:
        if self.singly and len(waves) > 1:
            return np.concatenate([self._embed([wave]) for wave in waves])
        lengths = [len(wave) for wave in waves]
        padded = np.zeros((len(waves), max(lengths)), np.float32)
        for row, wave in zip(padded, waves):
            row[: len(wave)] = wave
        with torch.inference_mode():
            batch = torch.from_numpy(padded).to(self.device)
            unequal = lengths_tensor(lengths, self.device) if min(lengths) < max(lengths) else None
            return self.encoder(batch, unequal).float().cpu().numpy()

    def bona_fide_scores(self, vectors: np.ndarray) -> np.ndarray:
        """Score embeddings (files, dimension) as a countermeasure does: float (files,), high for
        bona fide speech.

        A model that was trained with a spoof head has that, a countermeasure (AASIST) has a layer;
        of another model it is how far the embedding points away from spoofed speech.

        Raises:
            SasvError: see spoof_direction.
        """
        head = self.spoof_head()
        if head is not None:
            return head.scores(vectors)
        layer = getattr(self.encoder, "scores", None)
        if layer is None:
            found: np.ndarray = -(unit(vectors) @ self.spoof_direction())
            return found
        with torch.inference_mode():
            scores: np.ndarray = (
                layer(torch.from_numpy(vectors).to(self.device)).float().cpu().numpy()
            )
        return scores

    def check_countermeasure(self) -> None:
        """Check that ``bona_fide_scores`` can be computed. SasvError says why not."""
        if self.spoof_head() is None and not self.scores_whole_utterances:
            self.spoof_direction()

    @property
    def scores_whole_utterances(self) -> bool:
        """Whether ``bona_fide_scores`` takes raw embeddings of whole utterances alone, not the mean
        of those of crops: so it is where a layer of the encoder computes them.
        """
        return self.spoof_head() is None and hasattr(self.encoder, "scores")

    def spoof_direction(self) -> np.ndarray:
        """Return the unit vector (dimension,) of spoofed speech: the head's weight of the spoof
        class.

        Raises:
            SasvError: the model was trained without spoofed speech, or its head is not in the
                checkpoint.
        """
        weight = self._loss.class_directions(self.head)
        index = self.specification.spoof_index
        if (
            index is None
            or weight is None
            or weight.shape[1:] != (self.dimension,)
            or index >= len(weight)
        ):
            raise SasvError(
                f"{self.name}: was trained without spoofed speech; Stages 2 and 3 make a "
                "countermeasure"
            )
        return unit(weight[index].float().numpy())

    def spoof_head(self) -> SpoofHead | None:
        """Return the spoof head that was trained beside the speaker loss; None where there is
        none.
        """
        found = self._loss.countermeasure(self.head)
        if found is None or found[0].shape != (self.dimension,):
            return None
        return SpoofHead(found[0].numpy(), found[1])

    def trial_classes(self) -> TrialClasses | None:
        """Return the three classes of trials of a model that was trained with the three-class loss;
        else None.
        """
        find = getattr(self._loss, "trial_classifier", None)
        found = None if find is None else find(self.head)
        if found is None or self.spoof_head() is None:
            return None
        weight, bias = found
        return TrialClasses(weight.float().numpy(), bias.float().numpy())

    @property
    def _loss(self) -> type[Loss]:
        """Class of the loss that the model was trained with."""
        loss: type[Loss] = LOSSES.get(self.specification.loss) if self.specification.loss else Loss
        return loss

    def verifier(self, cohort: Cohort | None = None) -> Verifier:
        """Return what decides by the scores of this model: what its specification records.

        Args:
            cohort: the people of s-norm, where the specification names a cohort.
        """
        specification = self.specification
        head = self.spoof_head()
        classes = self.trial_classes()
        three_class = None if head is None or classes is None else ThreeClass(head, classes)
        return Verifier.from_records(
            specification.scoring, specification.decision, cohort, self.name, three_class
        )

    def recording(
        self, speech: Speech, limits: SpeechLimits | None = None, name: str = "waveform"
    ) -> Recording:
        """Measure the speech in a recording, shorten its pauses, and embed it: what a verifier
        takes.

        Args:
            speech: a path, or a waveform of shape (samples,) at the model's rate.
            limits: how much speech there has to be, and how long a pause may be; left out,
                SpeechLimits(). A recording with too little speech is not embedded.
            name: of a waveform, for messages.

        Raises:
            AudioError: unreadable, too short, too long, silent, or not finite.
        """
        limits = limits or SpeechLimits()
        rate = self.specification.sample_rate
        if isinstance(speech, str | os.PathLike):
            name = os.fspath(speech)
        whole = self._read_whole(speech, name)
        activity = net_speech(whole, rate)
        seconds = len(whole) / rate
        vector = None
        if activity.net_seconds >= limits.min_test:
            own = self.extraction.max_pause
            wave = self._shortened(whole, activity, limits.max_pause if own is None else own)
            seconds = len(wave) / rate
            vector = self.embed_many([wave])[0]
        return Recording(
            name, vector, seconds, activity.net_seconds, activity.share, activity.level
        )

    def enrol(self, recordings: Sequence[Speech], limits: SpeechLimits | None = None) -> np.ndarray:
        """Return a speaker's voiceprint: the mean of the raw embeddings of all enrolment
        recordings.

        Args:
            recordings: paths, or waveforms at the model's rate.
            limits: see ``recording``.

        Raises:
            SasvError: a recording holds too little speech, or its embedding is not finite.
        """
        limits = limits or SpeechLimits()
        found = [self.recording(one, limits) for one in recordings]
        faults = limits.enrolment_faults(found)
        if faults:
            raise SasvError("; ".join(reason.text for reason in faults))
        return np.mean([one.vector for one in found if one.vector is not None], axis=0)

    def score(self, enrolment: np.ndarray, test: np.ndarray) -> float:
        """Return the cosine of two embeddings, in [-1, 1]; higher: the claimed speaker, bona fide.

        Raises:
            SasvError: one of them is zero or not finite.
        """
        return Verifier().score([enrolment], test)


def crop_vectors(crops: np.ndarray) -> np.ndarray:
    """Return (utterances, dimension): the mean of the normalised embeddings (utterances, crops,
    dimension).

    The inner product of two such vectors is the mean cosine over all pairs of their crops.
    """
    return unit(crops).mean(axis=1)


def load_model(
    path: str | os.PathLike[str],
    device: str | torch.device = "auto",
    extraction: Extraction | None = None,
) -> Model:
    """Load a checkpoint (ours or a published ``.model``) for inference.

    Args:
        path: checkpoint file.
        device: "cpu", "cuda", ..., or "auto" for a GPU where there is one.
        extraction: how utterances become embeddings; left out, as the specification says of its
            scores (most: whole).

    Raises:
        CheckpointError: see load_checkpoint.
    """
    return Model(load_checkpoint(path), pick_device(device), extraction)
