"""A model ready to use: ``load_model(path).embed(path_or_waveform)``."""

import os
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import soxr
import torch
from torch import Tensor

from sasv.audio import check_speech, read_speech
from sasv.checkpoints import Checkpoint, load_checkpoint, spawn_encoder
from sasv.core.errors import AudioError, SasvError
from sasv.core.files import sha256
from sasv.encoders.base import lengths_tensor
from sasv.parallel.devices import pick_device

MAX_SECONDS = 300.0
"""Longest utterance that is embedded in one piece."""

Speech = str | os.PathLike[str] | np.ndarray | Tensor


class Model:
    """An encoder in evaluation mode with its specification.

    Attributes:
        specification: what the checkpoint says of itself.
        encoder: the torch module.
        device: where it runs.
        max_seconds: longer recordings are refused (300 s unless changed).
        crops: where not 0, an utterance is embedded as so many crops, and its embedding is the mean of theirs,
            normalised (multi-crop: see crop_vectors).
        crop_seconds: length of a crop; shorter utterances are repeated up to it.
    """

    def __init__(self, checkpoint: Checkpoint, device: str | torch.device = "cpu"):
        self.specification = checkpoint.specification
        self.name, self.head = checkpoint.name, checkpoint.head
        self.device = torch.device(device)
        self.encoder = spawn_encoder(checkpoint).to(self.device).eval()
        self.max_seconds = MAX_SECONDS
        self.crops, self.crop_seconds = 0, 4.0

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the specification's encoder and of all its weights."""
        parts = [value.detach().cpu().numpy().tobytes() for value in self.encoder.state_dict().values()]
        return sha256(self.specification.encoder, *parts)

    @property
    def dimension(self) -> int:
        """Dimension of the embeddings."""
        return self.encoder.dimension

    def read(self, speech: Speech, name: str = "waveform") -> np.ndarray:
        """Return checked mono samples of a file (any format and rate) or of a waveform (already at the model's rate).

        Raises:
            AudioError: unreadable, too short, too long, silent, or not finite.
        """
        spec = self.specification
        if isinstance(speech, str | os.PathLike):
            return read_speech(speech, spec.min_samples, self.max_seconds, spec.sample_rate)
        wave = np.asarray(speech.detach().cpu() if isinstance(speech, Tensor) else speech, dtype=np.float32)
        if wave.ndim == 1 and len(wave) > self.max_seconds * spec.sample_rate:
            raise AudioError(
                f"{name}: {len(wave) / spec.sample_rate:.0f} s long, over the limit of {self.max_seconds:.0f} s"
            )
        return check_speech(wave, name, spec.min_samples, spec.sample_rate)

    def embed(self, speech: Speech, rate: int | None = None) -> np.ndarray:
        """Return the raw embedding, float32 of shape (dimension,), of an audio file or of a waveform.

        Args:
            speech: a path, or a waveform of shape (samples,), values in [-1, 1].
            rate: samples per second of a waveform, where it is not the model's (16 kHz).
        """
        if rate is not None and not isinstance(speech, str | os.PathLike):
            speech = soxr.resample(np.asarray(speech, np.float32), rate, self.specification.sample_rate)
        return self.embed_many([self.read(speech)])[0]

    def embed_many(self, waves: Sequence[np.ndarray]) -> np.ndarray:
        """Embed checked waveforms of any lengths in one batch: float32 (files, dimension), equal to single calls."""
        if self.crops:
            return crop_vectors(np.stack([self._embed_crops(wave) for wave in waves]))
        return self._embed(waves)

    def _embed_crops(self, wave: np.ndarray) -> np.ndarray:
        """Return the embeddings (crops, dimension) of crops at evenly spaced starts."""
        size = max(self.specification.min_samples, round(self.crop_seconds * self.specification.sample_rate))
        wave = np.resize(wave, max(len(wave), size))
        starts = np.linspace(0, len(wave) - size, self.crops).astype(int)
        return self._embed([wave[start : start + size] for start in starts])

    def _embed(self, waves: Sequence[np.ndarray]) -> np.ndarray:
        lengths = [len(wave) for wave in waves]
        padded = np.zeros((len(waves), max(lengths)), np.float32)
        for row, wave in zip(padded, waves):
            row[: len(wave)] = wave
        with torch.inference_mode():
            batch = torch.from_numpy(padded).to(self.device)
            unequal = lengths_tensor(lengths, self.device) if min(lengths) < max(lengths) else None
            return self.encoder(batch, unequal).float().cpu().numpy()

    def spoof_direction(self) -> np.ndarray:
        """Return the unit vector (dimension,) of spoofed speech: the head's weight of the spoof class.

        Raises:
            SasvError: the model was trained without spoofed speech, or its head is not in the checkpoint.
        """
        weight = next((value for name, value in self.head.items() if name.split(".")[-1] == "weight"), None)
        index = self.specification.spoof_index
        if index is None or weight is None or weight.shape[1] != self.dimension:
            raise SasvError(f"{self.name}: was trained without spoofed speech; Stages 2 and 3 make a countermeasure")
        vector = weight[index].float().numpy()
        return vector / np.linalg.norm(vector)

    def enrol(self, recordings: Sequence[Speech]) -> np.ndarray:
        """Return a speaker's voiceprint: the mean of the raw embeddings of all enrolment recordings."""
        if not recordings:
            raise SasvError("enrolment needs at least one recording")
        return np.mean([self.embed(recording) for recording in recordings], axis=0)

    def score(self, enrolment: np.ndarray, test: np.ndarray) -> float:
        """Return the cosine of two embeddings, in [-1, 1]; higher: the claimed speaker, bona fide."""
        product = float(np.dot(enrolment, test))
        return product / float(np.linalg.norm(enrolment) * np.linalg.norm(test))


def crop_vectors(crops: np.ndarray) -> np.ndarray:
    """Return (utterances, dimension): the mean of the normalised embeddings (utterances, crops, dimension).

    The inner product of two such vectors is the mean cosine over all pairs of their crops.
    """
    norms = np.linalg.norm(crops, axis=2, keepdims=True)
    return (crops / np.maximum(norms, 1e-12).astype(crops.dtype)).mean(axis=1)


def load_model(path: str | os.PathLike[str], device: str | torch.device = "auto") -> Model:
    """Load a checkpoint (ours or a published ``.model``) for inference.

    Args:
        path: checkpoint file.
        device: "cpu", "cuda", ..., or "auto" for a GPU where there is one.

    Raises:
        CheckpointError: see load_checkpoint.
    """
    return Model(load_checkpoint(path), pick_device(device))
