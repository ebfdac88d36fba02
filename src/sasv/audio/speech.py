"""Detects speech in recordings with the Silero voice activity detector (see silero)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import soxr

from sasv.audio.silero import CONTEXT, FRAME, Detector
from sasv.core.errors import SasvError

DETECTOR_RATE = 16000
"""Sample rate in Hz for which the detector was trained."""

FRAMES_AT_ONCE = 2048
"""Number of frames that the network processes together, so that an hour of audio needs hardly more
memory than a minute.
"""

SPEECH_STARTS = 0.5
SPEECH_ENDS = 0.35
"""Probabilities above which a stretch of speech starts, and below which it may end (defaults of the
package).
"""

MIN_SPEECH = 0.25
MIN_PAUSE = 0.1
"""Shorter stretches of speech are dropped, and shorter pauses are bridged, in seconds (defaults of
the package).
"""

Span = tuple[float, float]


@dataclass(frozen=True)
class SpeechActivity:
    """The stretches of speech in a recording.

    Attributes:
        seconds: length of the recording.
        level: root mean square of the recording after removing its mean, in dB relative to full
            scale; -inf for silence.
        spans: (start, end) of each stretch of speech, in seconds, in order.
    """

    seconds: float
    level: float
    spans: tuple[Span, ...]

    @property
    def net_seconds(self) -> float:
        """Seconds of speech."""
        return float(sum(end - start for start, end in self.spans))

    @property
    def share(self) -> float:
        """Share of the recording that is speech, in [0, 1]."""
        return self.net_seconds / self.seconds if self.seconds else 0.0


def net_speech(wave: np.ndarray, rate: int = DETECTOR_RATE) -> SpeechActivity:
    """Measure how much of a recording is speech.

    Args:
        wave: (samples,), mono, values in [-1, 1].
        rate: sample rate in Hz.

    Raises:
        SasvError: a sample is not finite.
    """
    if not np.isfinite(wave).all():
        raise SasvError("NaN or infinite samples; write the audio again")
    wave = np.asarray(wave, np.float64)
    if not len(wave):
        return SpeechActivity(0.0, -np.inf, ())
    centred = wave - wave.mean()  # a constant offset is not sound
    power = float(np.mean(centred**2))
    level = 10 * np.log10(power) if power > 0 else -np.inf
    seconds = len(wave) / rate
    full_scale = max(
        1.0, float(np.abs(centred).max())
    )  # samples on another scale must not overflow
    spans = speech_spans(
        speech_probabilities((centred / full_scale).astype(np.float32), rate), seconds
    )
    return SpeechActivity(seconds, float(level), spans)


def speech_probabilities(wave: np.ndarray, rate: int = DETECTOR_RATE) -> np.ndarray:
    """Return the probability of speech in each frame of 32 ms.

    Args:
        wave: (samples,), mono, values in [-1, 1].
        rate: sample rate in Hz.

    Returns:
        float32 (frames,), values in [0, 1].
    """
    if rate != DETECTOR_RATE:
        wave = soxr.resample(np.asarray(wave, np.float32), rate, DETECTOR_RATE)
    count = -(-len(wave) // FRAME)
    padded = np.zeros(CONTEXT + count * FRAME, np.float32)
    padded[CONTEXT : CONTEXT + len(wave)] = wave
    frames = (
        np.lib.stride_tricks.sliding_window_view(padded, CONTEXT + FRAME)[::FRAME]
        if count
        else padded[:0]
    )
    detector = _detector()
    state = detector.start()
    probabilities = np.empty(count, np.float32)
    for low in range(0, count, FRAMES_AT_ONCE):
        part = frames[low : low + FRAMES_AT_ONCE]
        probabilities[low : low + len(part)], state = detector(part, state)
    return probabilities


def speech_spans(probabilities: np.ndarray, seconds: float) -> tuple[Span, ...]:
    """Return the stretches of speech for given probabilities.

    Args:
        probabilities: probability of speech in each frame of 32 ms, (frames,).
        seconds: length of the recording.

    Returns:
        (start, end) of each stretch in seconds, in order.
    """
    spans: list[list[float]] = []
    speaking = False
    for frame, probability in enumerate(probabilities.tolist()):
        time = frame * FRAME / DETECTOR_RATE
        if not speaking and probability >= SPEECH_STARTS:
            speaking = True
            if spans and time - spans[-1][1] < MIN_PAUSE:
                continue  # the pause is too short, so the previous stretch goes on
            spans.append([time, seconds])
        elif speaking and probability < SPEECH_ENDS:
            speaking = False
            spans[-1][1] = time
    if speaking:
        spans[-1][1] = seconds
    return tuple((start, end) for start, end in spans if end - start >= MIN_SPEECH)


def shorten_pauses(
    wave: np.ndarray, spans: Sequence[Span], max_pause: float, rate: int = DETECTOR_RATE
) -> np.ndarray:
    """Return the recording with every pause shortened to at most ``max_pause`` seconds.

    A longer pause between two stretches of speech loses its middle. Before the first and after the
    last stretch, the part farthest from the speech is removed. A recording without longer pauses is
    returned unchanged.

    Args:
        wave: (samples,).
        spans: stretches of speech, (start, end) in seconds (see net_speech).
        max_pause: longest pause to keep, in seconds.
        rate: sample rate in Hz.

    Returns:
        (samples kept,).
    """
    if not spans:
        return wave
    keep = round(max_pause * rate)
    pieces = []
    first = max(0, round(spans[0][0] * rate) - keep)
    for (_, end), (start, _) in zip(spans, spans[1:]):
        stop = round(end * rate)
        again = round(start * rate)
        if again - stop > keep:
            pieces.append(wave[first : stop + keep // 2])
            first = again - (keep - keep // 2)
    pieces.append(wave[first : round(spans[-1][1] * rate) + keep])
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


@cache
def _detector() -> Detector:
    return Detector()
