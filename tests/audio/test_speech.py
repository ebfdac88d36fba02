"""Speech activity detection: the detector equals that of the package silero-vad, noise is not
detected as speech, and shortening pauses does not change speech.
"""

import time
import warnings

import numpy as np
import pytest

from conftest import shared
from sasv.audio import read_audio
from sasv.audio.speech import net_speech, shorten_pauses, speech_probabilities, speech_spans
from sasv.core.errors import SasvError

RATE = 16000


def coloured(slope: float, level: float, seed: int, seconds: float = 4) -> np.ndarray:
    """Return noise whose power falls with frequency to the power of ``slope``, with a peak of
    ``level`` dBFS.
    """
    rng = np.random.default_rng(seed)
    count = int(seconds * RATE)
    frequencies = np.fft.rfftfreq(count)
    frequencies[0] = frequencies[1]
    spectrum = rng.standard_normal(len(frequencies)) + 1j * rng.standard_normal(len(frequencies))
    wave = np.fft.irfft(spectrum * frequencies ** (-slope / 2), count)
    return (wave / np.abs(wave).max() * 10 ** (level / 20)).astype(np.float32)


def sounds() -> dict[str, np.ndarray]:
    """Return sounds that are not speech."""
    rng = np.random.default_rng(0)
    count = 4 * RATE
    at = np.arange(count) / RATE
    found = {
        f"noise of slope {slope} at {level} dB": coloured(slope, level, abs(7 * slope + level))
        for slope in (-2, -1, 0, 1, 2, 3)
        for level in (0, -20, -45, -70)
    }
    found |= {
        f"tone of {pitch} Hz": 0.5 * np.sin(2 * np.pi * pitch * at)
        for pitch in (50, 100, 180, 440, 1000, 3000)
    }
    found |= {
        f"buzz of {pitch} Hz": 0.05
        * sum(np.sin(2 * np.pi * k * pitch * at) / k for k in range(1, 12))
        for pitch in (60, 110, 150, 220)
    }
    click = np.zeros(count)
    click[count // 2] = 1.0
    found |= {
        "silence": np.zeros(count),
        "constant": np.full(count, 0.1),
        "constant and hiss": 0.1 + 1e-3 * rng.standard_normal(count),
        "click": click,
        "clicks": (np.arange(count) % 4000 == 0) * 0.8,
        "clipped noise": np.sign(rng.standard_normal(count)),
        "clipped tone": np.sign(np.sin(2 * np.pi * 120 * at)),
        "chord": 0.1 * sum(np.sin(2 * np.pi * pitch * at) for pitch in (262, 330, 392, 523)),
        "chirp": 0.2 * np.sin(2 * np.pi * np.cumsum(100 + 700 * at) / RATE),
        "noise at the rate of syllables": 0.1
        * rng.standard_normal(count)
        * (1 + np.sin(2 * np.pi * 4 * at)),
        "one huge sample": np.where(
            np.arange(count) == 100, 1e20, 0.01 * rng.standard_normal(count)
        ),
    }
    return found


SOUNDS = sounds()


@pytest.mark.parametrize("name", SOUNDS)
def test_noise_is_not_detected_as_speech(name):
    assert net_speech(SOUNDS[name].astype(np.float32)).net_seconds == 0


def test_level_ignores_dc_offset_and_samples_must_be_finite():
    at = np.arange(RATE) / RATE
    tone = 0.5 * np.sin(2 * np.pi * 100 * at)
    assert net_speech(tone + 0.3).level == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.01)
    assert net_speech(np.full(RATE, 0.3)).level < -200
    assert net_speech(np.zeros(0)).seconds == 0
    for bad in (np.nan, np.inf):
        with pytest.raises(SasvError, match="NaN or infinite"):
            net_speech(np.where(np.arange(RATE) == 5, bad, tone))


def test_network_equals_that_of_silero_vad(voice):
    torch = pytest.importorskip("torch")
    wave = voice(2 * RATE) * 4 + coloured(1, -20, 0, 2)
    wave = wave[: len(wave) // 512 * 512]
    threads = torch.get_num_threads()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from silero_vad import load_silero_vad

        network = load_silero_vad()
    torch.set_num_threads(threads)  # which the import of the package sets
    with torch.inference_mode():
        expected = network.audio_forward(torch.from_numpy(wave)[None], RATE).numpy()[0]
    np.testing.assert_allclose(speech_probabilities(wave), expected, atol=1e-4)


def test_spans_by_hand():
    frame = 512 / RATE
    probabilities = np.array(
        [0.1] * 10 + [0.9] * 20 + [0.1] * 2 + [0.6] * 20 + [0.1] * 10 + [0.9] * 3 + [0.1] * 5
    )
    spans = speech_spans(probabilities, len(probabilities) * frame)
    assert spans == (
        pytest.approx((10 * frame, 52 * frame)),
    )  # the short pause is bridged, and the short sound is removed
    assert speech_spans(np.full(20, 0.9), 0.63) == ((0.0, 0.63),)
    assert speech_spans(np.zeros(0), 0.0) == ()


def test_pauses_are_shortened_and_speech_is_kept():
    wave = np.arange(10 * RATE, dtype=np.float32)
    spans = ((3.0, 4.0), (4.4, 5.0), (8.0, 9.0))
    found = shorten_pauses(wave, spans, 0.5)
    expected = [wave[int(2.5 * RATE) : int(5.25 * RATE)], wave[int(7.75 * RATE) : int(9.5 * RATE)]]
    np.testing.assert_array_equal(found, np.concatenate(expected))
    np.testing.assert_array_equal(shorten_pauses(wave, spans, 10.0), wave)
    np.testing.assert_array_equal(shorten_pauses(wave, (), 0.5), wave)


@pytest.mark.speech
def test_real_speech_is_found_fast():
    """Files of two seconds pass, and half a minute takes much less than a second."""
    folder = shared("speech", "GLOBE")
    short = sorted(folder.rglob("*.flac"))[:20]
    assert min(net_speech(read_audio(path)).net_seconds for path in short) > 1.0
    wave = np.resize(read_audio(short[0]), 30 * RATE)
    started = time.process_time()
    net_speech(wave)
    assert time.process_time() - started < 1.0


@pytest.mark.slow
@pytest.mark.speech
def test_environmental_noise_is_not_detected_as_speech():
    """Ten classes of sounds, including crying babies and crowing cocks, never contain enough speech
    for a verdict.
    """
    paths = sorted(shared("speech", "noise").rglob("*.ogg"))
    assert paths and max(net_speech(read_audio(path)).net_seconds for path in paths) < 0.75
