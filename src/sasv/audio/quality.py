"""Recording quality of speech: signal-to-noise ratio, clipping, and bandwidth."""

from dataclasses import dataclass

import numpy as np

from sasv.audio.speech import SpeechActivity

FRAME_SECONDS = 0.032
LEAST_FRAMES = 4
SILENCE_POWER = 1e-9
"""Frames of less power (-90 dBFS) are digital silence, which tells nothing about the noise."""

NOISE_SHARE = 0.1
"""Share of the frames, the quietest ones, from which the noise power is estimated."""

HIGHEST_SNR = 60.0
LOWEST_SNR = -20.0
FLAT = 0.999
"""Two or more consecutive samples of at least this share of the peak count as clipped."""

BAND_DB = 65.0
"""A frequency band counts towards the bandwidth if it is at most this far below the strongest."""

BAND_HZ = 125.0
LONGEST_SECONDS = 30.0
"""The spectrum is computed from this many seconds at the beginning of the speech."""


@dataclass(frozen=True)
class Quality:
    """Recording quality of speech.

    Attributes:
        snr: signal-to-noise ratio in dB, from -20 to 60: power of the speech relative to the
            quietest tenth of the recording.
        clipped: share of clipped samples, in [0, 1].
        bandwidth: highest frequency in the speech, in Hz.
    """

    snr: float
    clipped: float
    bandwidth: float


def quality(wave: np.ndarray, activity: SpeechActivity, rate: int) -> Quality | None:
    """Measure the recording quality of speech; return None if there is no speech.

    Args:
        wave: (samples,), values in [-1, 1].
        activity: the stretches of speech in ``wave`` (see net_speech).
        rate: sample rate in Hz.
    """
    size = round(FRAME_SECONDS * rate)
    spans = [wave[round(start * rate) : round(end * rate)] for start, end in activity.spans]
    # Each span is measured separately, because joining two of them would create a click.
    spoken = np.concatenate([_frames(span, size) for span in spans] or [_frames(wave[:0], size)])
    if len(spoken) < LEAST_FRAMES:
        return None
    bandwidth = _bandwidth(spoken, rate)
    return Quality(_snr(_frames(wave, size), spoken), clipped_share(wave), bandwidth)


def clipped_share(wave: np.ndarray) -> float:
    """Return the share of the samples (samples,) that form a plateau at the peak, in [0, 1]."""
    magnitude = np.abs(wave)
    peak = magnitude.max(initial=0.0)
    if peak == 0:
        return 0.0
    flat = magnitude >= FLAT * peak
    neighbours = np.zeros_like(flat)
    neighbours[1:] |= flat[:-1]
    neighbours[:-1] |= flat[1:]
    return float(np.mean(flat & neighbours))


def _snr(frames: np.ndarray, spoken: np.ndarray) -> float:
    powers = frames.var(axis=1)
    powers = np.sort(powers[powers > SILENCE_POWER])
    if not len(powers):
        return HIGHEST_SNR
    noise = float(powers[: max(1, round(NOISE_SHARE * len(powers)))].mean())
    speech = float(spoken.var(axis=1).mean())
    if speech <= noise:
        return LOWEST_SNR
    return min(HIGHEST_SNR, float(10 * np.log10((speech - noise) / noise)))


def _frames(wave: np.ndarray, size: int) -> np.ndarray:
    """Return the whole frames of a waveform, (frames, size)."""
    return np.asarray(wave[: len(wave) // size * size], np.float64).reshape(-1, size)


def _bandwidth(spoken: np.ndarray, rate: int) -> float:
    size = spoken.shape[1]
    frames = spoken[: round(LONGEST_SECONDS * rate / size)]
    spectrum = (np.abs(np.fft.rfft(frames * np.hanning(size))) ** 2).mean(axis=0)
    bins = max(1, round(BAND_HZ * size / rate))
    bands = spectrum[1 : 1 + (len(spectrum) - 1) // bins * bins].reshape(-1, bins).mean(axis=1)
    present = np.flatnonzero(bands > bands.max() * 10 ** (-BAND_DB / 10))
    return float(min((present[-1] + 1) * bins * rate / size, rate / 2)) if len(present) else 0.0
