"""Speech as other microphones in other rooms would have recorded it.

A classifier of copies that has heard few corpora learns how these were recorded, and takes bona
fide speech of others for copies. RawBoost (Tak et al., ICASSP 2022) is a published remedy.
"""

import numpy as np

RATE = 16000
GAIN_RANGE = 8.0
"""Largest gain of a frequency, and largest loss, in dB."""
KNOTS = 9
"""Number of frequencies whose gains are drawn; between them the gains are interpolated."""


def through_channel(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return 16-bit speech with other gains of its frequencies, at times without the lowest or
    highest, at times in a small room, at times with steady noise, and at another level.

    Args:
        wave: (samples,).
        rng: draws the channel.

    Returns:
        (samples,) between -1 and 1.
    """
    changed = equalised(np.asarray(wave, np.float64), rng)
    if rng.random() < 0.35:
        changed = in_a_room(changed, rng)
    if rng.random() < 0.5:
        changed = changed + steady_noise(changed, rng)
    peak = np.abs(changed).max()
    if peak > 0:
        changed = changed / peak * decibels(-rng.uniform(0.5, 25))
    return np.round(changed * 32767) / 32768


def decibels(gain: np.ndarray | float) -> np.ndarray:
    """Return the factor of a gain in dB."""
    return np.asarray(10 ** (np.asarray(gain) / 20))


def equalised(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the wave with other gains of its frequencies."""
    size = 2 * len(wave)
    frequencies = np.fft.rfftfreq(size, 1 / RATE) + 1e-3
    knots = np.geomspace(60, RATE / 2, KNOTS)
    gains = rng.uniform(-GAIN_RANGE, GAIN_RANGE, KNOTS)
    response = decibels(np.interp(np.log(frequencies), np.log(knots), gains))
    if rng.random() < 0.3:
        response *= butterworth(rng.uniform(40, 200) / frequencies, rng)
    if rng.random() < 0.2:
        response *= butterworth(frequencies / rng.uniform(4000, 7800), rng)
    return np.fft.irfft(np.fft.rfft(wave, size) * response, size)[: len(wave)]


def butterworth(ratio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the response of a filter of random order, which stops where the ratio is over 1."""
    order = int(rng.integers(1, 6))
    return np.asarray(1 / np.sqrt(1 + np.minimum(ratio, 1e6) ** (2 * order)))


def in_a_room(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the wave with reflections that decay by 60 dB in 0.03 to 0.25 s."""
    taps = int(RATE * rng.uniform(0.03, 0.25))
    decay = decibels(-60 * np.arange(taps) / taps)
    reflections = rng.standard_normal(taps) * decay * (rng.random(taps) < 0.3)
    reflections *= decibels(-rng.uniform(0, 12)) / np.sqrt((reflections**2).sum() + 1e-12)
    reflections[0] = 1.0
    size = len(wave) + taps
    return np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(reflections, size), size)[: len(wave)]


def steady_noise(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return noise between white and pink, 12 to 45 dB below the wave."""
    spectrum = np.fft.rfft(rng.standard_normal(len(wave)))
    spectrum *= np.arange(1, len(spectrum) + 1) ** -rng.uniform(0, 1)
    noise = np.fft.irfft(spectrum, len(wave))
    level = np.sqrt((wave**2).mean() / (noise**2).mean())
    return np.asarray(noise * level * decibels(-rng.uniform(12, 45)))
