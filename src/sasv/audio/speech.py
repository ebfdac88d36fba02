"""Detects speech in recordings with the Silero voice activity detector, computed with NumPy and,
where it is installed, ONNX Runtime.

Source: the network and its weights are those of the package ``silero-vad``
(https://github.com/snakers4/silero-vad, MIT licence, in ``silero_vad_LICENSE.txt``). The package
itself is not used, because it needs PyTorch, sets the number of threads of the whole process to
one, and processes a recording frame by frame (half a second for 30 s of audio). Here the
convolutions process many frames at once. A test compares the probabilities with those of the
package.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import soxr
from safetensors.numpy import load_file

from sasv.audio.recurrent import Recurrence, Weights
from sasv.core.errors import SasvError

DETECTOR_RATE = 16000
"""Sample rate in Hz for which the detector was trained."""

FRAME = 512
"""Samples of a frame (32 ms), for which the detector computes one probability."""

CONTEXT = 64
"""Samples of the previous frame that are also input to the network."""

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
    weights = _weights()
    layer = _recurrence()
    state = layer.start()
    probabilities = np.empty(count, np.float32)
    for low in range(0, count, FRAMES_AT_ONCE):
        part = frames[low : low + FRAMES_AT_ONCE]
        hidden, state = layer(_features(part, weights), state)
        logits = np.maximum(hidden, 0) @ weights["decoder.decoder.2.weight"][0, :, 0]
        probabilities[low : low + len(part)] = _sigmoid(
            logits + weights["decoder.decoder.2.bias"][0]
        )
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
def _weights() -> Weights:
    """Read the weights of the detector, which are part of the package."""
    return load_file(Path(__file__).with_name("silero_vad_16k.safetensors"))


@cache
def _recurrence() -> Recurrence:
    prefix = "decoder.rnn."
    return Recurrence(
        {
            name.removeprefix(prefix): value
            for name, value in _weights().items()
            if name.startswith(prefix)
        }
    )


def _features(frames: np.ndarray, weights: Weights) -> np.ndarray:
    """Return the input of the LSTM, (frames, 128), for frames with their context, (frames, 576)."""
    padded = np.pad(frames, ((0, 0), (0, CONTEXT)), "reflect")
    # Short-time Fourier transform: four windows of 256 samples, 128 samples apart.
    windows = np.lib.stride_tricks.sliding_window_view(padded, 256, axis=1)[:, ::128]
    parts = windows @ weights["stft.forward_basis_buffer"][:, 0].T
    half = parts.shape[2] // 2
    values = np.sqrt(parts[..., :half] ** 2 + parts[..., half:] ** 2)
    for layer, stride in enumerate((1, 2, 2, 1)):
        name = f"encoder.{layer}.reparam_conv"
        values = _convolve(values, weights[f"{name}.weight"], weights[f"{name}.bias"], stride)
    return values[:, 0]


def _convolve(values: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int) -> np.ndarray:
    """Apply a convolution of width 3 with one zero of padding on each side, then a ReLU.

    Args:
        values: (frames, steps, inputs).
        weight: (outputs, inputs, 3).
        bias: (outputs,).
        stride: steps between two outputs.

    Returns:
        (frames, steps / stride, outputs).
    """
    padded = np.pad(values, ((0, 0), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, 3, axis=1)[:, ::stride]
    frames, steps = windows.shape[:2]
    flat = windows.reshape(frames * steps, -1) @ weight.reshape(len(weight), -1).T
    return np.maximum(flat.reshape(frames, steps, -1) + bias, 0)


def _sigmoid(values: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-values)) without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * values))
