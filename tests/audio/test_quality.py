"""Quality measures of recordings, compared with values that are known from the construction of the
recordings.
"""

import numpy as np
import pytest
import soxr

from sasv.audio.quality import clipped_share, quality
from sasv.audio.speech import SpeechActivity
from sasv.decision import Recording, SpeechLimits

RATE = 16000
ACTIVITY = SpeechActivity(4.0, -20.0, ((1.0, 2.0), (2.5, 3.5)))


def made(snr: float = 40.0, seed: int = 0) -> np.ndarray:
    """Return band-limited noise that is loud at ACTIVITY, plus softer noise everywhere."""
    rng = np.random.default_rng(seed)
    wave = 0.1 * 10 ** (-snr / 20) * rng.standard_normal(4 * RATE)
    for start, end in ACTIVITY.spans:
        span = slice(round(start * RATE), round(end * RATE))
        wave[span] += 0.1 * rng.standard_normal(span.stop - span.start)
    return wave


@pytest.mark.parametrize("snr", [0, 10, 20, 40])
def test_signal_to_noise_ratio(snr):
    assert quality(made(snr), ACTIVITY, RATE).snr == pytest.approx(snr, abs=1.0)


def test_digital_silence_does_not_count_as_noise():
    wave = made(10)
    wave[: RATE // 2] = 0
    assert quality(wave, ACTIVITY, RATE).snr == pytest.approx(10, abs=1.0)


def test_clipping():
    wave = made()
    assert quality(wave, ACTIVITY, RATE).clipped < 1e-4
    share = np.mean(np.abs(wave) > 0.1)
    assert clipped_share(np.clip(wave, -0.1, 0.1)) == pytest.approx(share, rel=0.5)
    assert clipped_share(np.zeros(100)) == 0 == clipped_share(np.zeros(0))


@pytest.mark.parametrize("hertz", [2000, 4000])
def test_bandwidth(hertz):
    wave = soxr.resample(soxr.resample(made(), RATE, 2 * hertz), 2 * hertz, RATE)
    assert quality(wave, ACTIVITY, RATE).bandwidth == pytest.approx(hertz, rel=0.1)
    assert quality(made(), ACTIVITY, RATE).bandwidth == pytest.approx(8000, rel=0.05)


def test_quality_is_undefined_without_speech():
    assert quality(made(), SpeechActivity(4.0, -20.0, ()), RATE) is None


@pytest.mark.parametrize(
    "values, code",
    [
        ({"snr": -1.0}, "too_noisy"),
        ({"clipped": 0.2}, "clipped"),
        ({"bandwidth": 2000.0}, "narrow_band"),
        ({"level": -80.0}, "too_quiet"),
        ({"agreement": 0.1}, "more_than_one_speaker"),
        ({"snr": 20.0, "clipped": 0.0, "bandwidth": 8000.0, "level": -20.0}, None),
    ],
)
def test_recordings_of_poor_quality_are_not_compared(values, code):
    limits = SpeechLimits(min_self_agreement=0.3)
    faults = limits.faults(Recording("it", np.ones(3), 3.0, 3.0, **values))
    assert [reason.code for reason in faults] == ([code] if code else [])
    assert all(reason.fatal and reason.text.startswith("it: ") for reason in faults)
