"""A source-filter vocoder: pulses and noise through the envelope of linear prediction (Atal and
Hanauer 1971).

The speech is divided into frames of 32 ms. The F0 and the voicing of each frame are estimated from
its autocorrelation, and its spectral envelope by linear prediction. The copy is a new excitation
(pulses at F0 below 4 kHz in voiced frames, noise elsewhere) filtered with the envelope.
"""

import numpy as np

from sasv.vocoders.base import Vocoder

WINDOW = 512
HOP = 80
ORDER = 22
LOWEST_F0 = 60.0
HIGHEST_F0 = 400.0
VOICED = 0.45
"""Minimum normalised autocorrelation of a voiced frame."""

NOISE_ABOVE = 4000.0
LEAST_POWER = 1e-9
SMOOTHED = 5
"""Length of the median filter over F0 in frames."""


class SourceFilter(Vocoder):
    """LPC analysis of order 22 with pulse and noise excitation; needs no weights."""

    def resynthesise(self, wave: np.ndarray, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        window = np.hanning(WINDOW + 1)[:-1]
        padded = np.pad(wave.astype(np.float64), (WINDOW // 2, WINDOW))
        frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP] * window
        f0, voicing = self.pitch(frames, window)
        count = len(padded)
        voiced = np.interp(
            np.arange(count),
            HOP * np.arange(len(f0)) + WINDOW // 2,
            (voicing > VOICED).astype(float),
        )
        pulses = self.pulses(f0, count) * voiced
        noise = rng.standard_normal(count)
        envelope = all_pole(frames, ORDER)
        rolled = 1 / (1 + (np.fft.rfftfreq(WINDOW, 1 / self.rate) / NOISE_ABOVE) ** 8)
        copy = np.zeros(count)
        weight = np.zeros(count)
        share = (voicing > VOICED)[:, None]
        for first in range(0, len(frames), 2000):  # limits the memory of a long recording
            part = slice(first, first + 2000)
            at = HOP * np.arange(*part.indices(len(frames)))
            cut = at[:, None] + np.arange(WINDOW)
            buzz, hiss = (np.fft.rfft(source[cut] * window) for source in (pulses, noise))
            mixed = np.where(share[part], buzz * rolled + hiss * np.sqrt(1 - rolled**2), hiss)
            made = np.fft.irfft(mixed * envelope[part], WINDOW) * window
            np.add.at(copy, cut, made)
            np.add.at(weight, cut, np.square(window)[None])
        return (copy / np.maximum(weight, 1e-3))[WINDOW // 2 :]

    def pitch(self, frames: np.ndarray, window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the smoothed F0 in Hz and the voicing (normalised autocorrelation) of each frame,
        (frames,) each.
        """
        correlation = autocorrelation(frames)
        own = autocorrelation(window[None])[0]
        low = int(self.rate / HIGHEST_F0)
        high = min(int(self.rate / LOWEST_F0), WINDOW - 1)
        normalised = (
            correlation
            / np.maximum(correlation[:, :1], LEAST_POWER)
            / np.maximum(own / own[0], 0.05)
        )
        lags = low + normalised[:, low:high].argmax(axis=1)
        voicing = normalised[np.arange(len(lags)), lags]
        around = np.pad(self.rate / lags, SMOOTHED // 2, mode="edge")
        return np.median(
            np.lib.stride_tricks.sliding_window_view(around, SMOOTHED), axis=1
        ), voicing

    def pulses(self, f0: np.ndarray, count: int) -> np.ndarray:
        """Return unit-power pulses at F0, (count,)."""
        contour = np.interp(np.arange(count), HOP * np.arange(len(f0)) + WINDOW // 2, f0)
        phase = np.cumsum(contour / self.rate)
        train = np.diff(np.floor(phase), prepend=0.0)
        return train * np.sqrt(self.rate / contour)


def autocorrelation(frames: np.ndarray) -> np.ndarray:
    """Return the autocorrelation of each frame, (frames, samples)."""
    size = frames.shape[1]
    return np.fft.irfft(np.abs(np.fft.rfft(frames, 2 * size)) ** 2)[:, :size]


def all_pole(frames: np.ndarray, order: int) -> np.ndarray:
    """Return the frequency response gain / A of the linear prediction of each frame, complex
    (frames, bins), computed by the Levinson-Durbin recursion.
    """
    correlation = autocorrelation(frames)[:, : order + 1]
    correlation[:, 0] = correlation[:, 0] * (1 + 1e-5) + LEAST_POWER
    predictor = np.zeros((len(frames), order + 1))
    predictor[:, 0] = 1
    error = correlation[:, 0].copy()
    for step in range(1, order + 1):
        reflection = -(predictor[:, :step] * correlation[:, step:0:-1]).sum(axis=1) / error
        predictor[:, 1 : step + 1] += reflection[:, None] * predictor[:, step - 1 :: -1][:, :step]
        error *= 1 - reflection**2
    gain = np.sqrt(np.maximum(error, LEAST_POWER) / frames.shape[1])
    return gain[:, None] / np.fft.rfft(predictor, frames.shape[1])
