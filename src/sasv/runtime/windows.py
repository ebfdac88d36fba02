"""Embeds speech in windows if it arrives in pieces or is too long to be embedded as a whole. Only
one window of audio is in memory at a time.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from sasv.audio import AUTO, measure, read_audio
from sasv.core.errors import AudioError, SasvError
from sasv.decision import Recording, SpeechLimits
from sasv.runtime.embedder import Embedder, Speech
from sasv.scores import unit

WINDOW_SECONDS = 20.0
"""Length of a window. Shorter recordings are embedded as a whole."""


class Windows:
    """The embedding of speech so far.

    A window is embedded when it is complete, and its audio is then discarded. The embedding of the
    whole is computed from the windows with enough speech of sufficient quality: the mean of their
    directions, weighted by seconds of speech, scaled to the mean of their norms.
    """

    def __init__(
        self, embedder: Embedder, limits: SpeechLimits, seconds: float = WINDOW_SECONDS
    ) -> None:
        """Begin without any audio.

        Args:
            embedder: embeds the windows.
            limits: requirements on a window.
            seconds: audio of a window.
        """
        self.embedder = embedder
        self.limits = limits
        self.rate = embedder.specification.sample_rate
        self.size = round(seconds * self.rate)
        if self.size < embedder.specification.min_samples:
            raise SasvError(
                f"a window of {seconds:g} s is shorter than the shortest recording that the model "
                "embeds"
            )
        self.heard = 0
        self.closed: list[Recording] = []
        self.pending = np.zeros(0, np.float32)

    def feed(self, samples: np.ndarray, name: str = "stream") -> None:
        """Add samples, float in [-1, 1] or 16-bit integers, at the sample rate of the model.

        Raises:
            AudioError: the samples are not one channel of finite numbers.
        """
        wave = np.asarray(samples)
        if wave.dtype == np.int16:
            wave = wave / 32768
        wave = wave.astype(np.float32)
        if wave.ndim != 1 or not np.isfinite(wave).all():
            raise AudioError(f"{name}: samples must be one channel of finite numbers")
        self.heard += len(wave)
        while len(wave):
            taken = self.size - len(self.pending)
            self.pending = np.concatenate((self.pending, wave[:taken]))
            wave = wave[taken:]
            if len(self.pending) == self.size:
                self.closed.append(self._measured(self.pending, name))
                self.pending = self.pending[:0]

    def recording(self, name: str = "stream") -> Recording:
        """Return the input of a verifier for all samples so far."""
        parts = list(self.closed)
        if len(self.pending) or not parts:
            parts.append(self._measured(self.pending, name))
        return together(parts, self.limits, name)

    def _measured(self, wave: np.ndarray, name: str) -> Recording:
        if len(wave) < self.embedder.specification.min_samples:
            return Recording(name, None, len(wave) / self.rate, 0.0, 0.0)
        return self.embedder.measured(wave, self.limits, name)


def together(parts: Sequence[Recording], limits: SpeechLimits, name: str) -> Recording:
    """Return one recording that combines several parts of it; a single part is returned unchanged.

    If none of the parts meets the requirements, the reason is that of the part with the most
    speech. Parts that do not meet them are left out, except for those with several speakers, which
    are a reason not to compare the whole.
    """
    if len(parts) == 1:
        return replace(parts[0], name=name)
    usable = [part for part in parts if not limits.faults(replace(part, agreement=None))]
    if not usable:
        best = max(parts, key=lambda part: part.net_speech or 0.0)
        return replace(best, name=name, vector=None)
    vectors = np.stack([np.asarray(part.vector, np.float64) for part in usable])
    weights = np.array([max(part.net_speech or 0.0, 1e-3) for part in usable])
    weights /= weights.sum()
    directions = unit(vectors)
    length = float(weights @ np.linalg.norm(vectors, axis=1))
    vector = (unit(weights @ directions) * length).astype(np.float32)
    neighbours = (directions[1:] * directions[:-1]).sum(axis=1)
    agreements = [part.agreement for part in usable if part.agreement is not None]
    agreements += neighbours.tolist()

    def mean(values: Sequence[float | None]) -> float | None:
        known = [(weight, value) for weight, value in zip(weights, values) if value is not None]
        total = sum(weight for weight, _ in known)
        return sum(weight * value for weight, value in known) / total if known else None

    bands = [part.bandwidth for part in usable if part.bandwidth is not None]
    net_speech = sum(part.net_speech or 0.0 for part in usable)
    return Recording(
        name=name,
        vector=vector,
        seconds=sum(part.seconds for part in usable),
        net_speech=net_speech,
        share=mean([part.share for part in usable]),
        level=mean([part.level for part in usable]),
        snr=mean([part.snr for part in usable]),
        clipped=mean([part.clipped for part in usable]),
        bandwidth=max(bands, default=None),
        agreement=min(agreements) if limits.min_self_agreement is not None else None,
    )


def any_recording(
    embedder: Embedder, speech: Speech, limits: SpeechLimits, name: str = "waveform"
) -> Recording:
    """Return the input of a verifier for a recording. A file that is too long to be embedded as a
    whole is embedded in windows.
    """
    if isinstance(speech, str | os.PathLike) and Path(speech).is_file():
        extraction = embedder.extraction
        if measure(speech).seconds > extraction.max_seconds:
            return long_recording(embedder, speech, limits, channel=extraction.channel)
    return embedder.recording(speech, limits, name)


def long_recording(
    embedder: Embedder,
    path: str | os.PathLike[str],
    limits: SpeechLimits,
    seconds: float = WINDOW_SECONDS,
    channel: str = AUTO,
) -> Recording:
    """Return the input of a verifier for a file of any length, embedded in windows.

    Args:
        embedder: embeds the windows.
        path: the file; only one window of it is in memory at a time.
        limits: requirements on a window.
        seconds: audio of a window.
        channel: channel to read (see read_audio).

    Raises:
        AudioError: the file cannot be read.
    """
    name = os.fspath(path)
    rate = embedder.specification.sample_rate
    info = measure(path)
    windows = Windows(embedder, limits, seconds)
    total = -(-info.samples * rate // info.rate)
    for start in range(0, total, windows.size):
        windows.feed(read_audio(path, start, windows.size, rate, channel=channel), name)
    return windows.recording(name)
