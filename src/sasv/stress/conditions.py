"""The conditions that are applied to recordings. Each is one line of CONDITIONS.

A condition changes bona fide and spoofed recordings in the same way. Its random draws depend on the
seed, its name, and the original recording only, so that a copy receives the same noise as its
original.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sasv.audio import RATE, read_audio
from sasv.audio.codecs import check_codecs, transmit
from sasv.audio.speech import net_speech
from sasv.batches.augment import at_snr, convolve
from sasv.core.errors import MissingExtra, SasvError, listed

CLEAN = "clean"
FULL_SCALE = 0.999
SIXTEEN_BITS = 32768.0
DECAY = 6.9
"""Natural logarithm of 1000. The reverberation time is the time in which sound decays by 60 dB."""

TALKERS = 4
"""Number of other people who speak at the same time in babble."""


@dataclass(frozen=True)
class Surroundings:
    """The sounds that conditions add to a recording.

    Attributes:
        noises: recordings of noise.
        rirs: impulse responses of rooms.
        others: recordings of other speakers, for babble.
    """

    noises: Sequence[str] = ()
    rirs: Sequence[str] = ()
    others: Sequence[str] = ()


Change = Callable[[np.ndarray, np.random.Generator, Surroundings], np.ndarray]
"""Applies a condition to (samples,) float32 at 16 kHz, and returns the same form."""


@dataclass(frozen=True)
class Condition:
    """A condition.

    Attributes:
        text: description with the parameters; results that were computed with another text are not
            used again.
        change: applies the condition.
        codec: the codec of ``sasv.audio.codecs`` that it uses, if any.
        needs: the attribute of Surroundings that must not be empty, if any.
    """

    text: str
    change: Change
    codec: str = ""
    needs: str = ""


def coded(codec: str, bit_rate: int | None = None) -> Change:
    """Return the change by a codec, at a bit rate in bit/s if it has several."""
    return lambda wave, rng, around: transmit(wave, codec, rng, bit_rate)


def white_noise(snr: float) -> Change:
    """Return the change that adds white noise at a signal-to-noise ratio in dB."""

    def change(wave: np.ndarray, rng: np.random.Generator, around: Surroundings) -> np.ndarray:
        noise = rng.standard_normal(len(wave)).astype(np.float32)
        noisy: np.ndarray = wave + at_snr(wave, noise, snr)
        return noisy

    return change


def babble(snr: float) -> Change:
    """Return the change that adds babble, at a signal-to-noise ratio in dB."""

    def change(wave: np.ndarray, rng: np.random.Generator, around: Surroundings) -> np.ndarray:
        count = min(TALKERS, len(around.others))
        chosen = rng.choice(len(around.others), count, replace=False)
        voices = [stretched(read_audio(around.others[row]), len(wave)) for row in chosen]
        total = np.sum([at_snr(wave, voice, 0.0) for voice in voices], axis=0)
        noisy: np.ndarray = wave + at_snr(wave, total, snr)
        return noisy

    return change


def recorded_noise(snr: float) -> Change:
    """Return the change that adds recorded noise at a signal-to-noise ratio in dB."""

    def change(wave: np.ndarray, rng: np.random.Generator, around: Surroundings) -> np.ndarray:
        path = around.noises[int(rng.integers(len(around.noises)))]
        noise = read_audio(path, samples=len(wave), place=rng.random())
        noisy: np.ndarray = wave + at_snr(wave, stretched(noise, len(wave)), snr)
        return noisy

    return change


def room(seconds: float, direct: float) -> Change:
    """Return the change that adds the reverberation of a room, simulated as decaying noise after
    the direct sound.

    Args:
        seconds: reverberation time.
        direct: ratio of the energy of the direct sound to that of the reverberation, in dB.
    """

    def change(wave: np.ndarray, rng: np.random.Generator, around: Surroundings) -> np.ndarray:
        time = np.arange(1, round(seconds * RATE)) / RATE
        tail = rng.standard_normal(len(time)) * np.exp(-DECAY * time / seconds)
        tail *= np.sqrt(10 ** (-direct / 10) / np.square(tail).sum())
        return convolved(wave, np.append(1.0, tail))

    return change


def recorded_room(wave: np.ndarray, rng: np.random.Generator, around: Surroundings) -> np.ndarray:
    """Return speech with the reverberation of a recorded room."""
    path = around.rirs[int(rng.integers(len(around.rirs)))]
    return convolved(wave, read_audio(path, samples=len(wave), place=0.0))


def lower(decibels: float) -> Change:
    """Return the change that lowers the level by a number of decibels and quantises to 16 bits."""

    def change(wave: np.ndarray, rng: np.random.Generator, around: Surroundings) -> np.ndarray:
        return np.round(wave * 10 ** (-decibels / 20) * SIXTEEN_BITS) / SIXTEEN_BITS

    return change


def clipped(decibels: float) -> Change:
    """Return the change that clips a recording whose peak is raised above full scale."""

    def change(wave: np.ndarray, rng: np.random.Generator, around: Surroundings) -> np.ndarray:
        peak = float(np.abs(wave).max())
        return np.clip(wave * (10 ** (decibels / 20) / peak), -1.0, 1.0)

    return change


def beginning(seconds: float) -> Change:
    """Return the change that keeps the first seconds of speech of a recording."""

    def change(wave: np.ndarray, rng: np.random.Generator, around: Surroundings) -> np.ndarray:
        left = seconds
        spans = net_speech(wave).spans or ((0.0, len(wave) / RATE),)
        for start, end in spans:
            if end - start >= left:
                return wave[round(spans[0][0] * RATE) : round((start + left) * RATE)]
            left -= end - start
        return wave[round(spans[0][0] * RATE) :]

    return change


def unchanged(wave: np.ndarray, rng: np.random.Generator, around: Surroundings) -> np.ndarray:
    """Return a recording unchanged."""
    return wave


CONDITIONS = {
    CLEAN: Condition("the recording as it is", unchanged),
    "mp3-64": Condition("MP3, 64 kbit/s", coded("mp3", 64000), "mp3"),
    "mp3-16": Condition("MP3, 16 kbit/s", coded("mp3", 16000), "mp3"),
    "opus-24": Condition("Opus, 24 kbit/s", coded("opus", 24000), "opus"),
    "opus-8": Condition("Opus, 8 kbit/s", coded("opus", 8000), "opus"),
    "g722": Condition("G.722, 64 kbit/s", coded("g722"), "g722"),
    "telephone": Condition("8 kHz, telephone band", coded("8khz")),
    "g711": Condition("G.711 mu-law, telephone band", coded("mulaw")),
    "amr-12": Condition("AMR, 12.2 kbit/s", coded("amr", 12200), "amr"),
    "amr-5": Condition("AMR, 4.75 kbit/s", coded("amr", 4750), "amr"),
    "white-20": Condition("white noise, SNR 20 dB", white_noise(20.0)),
    "white-10": Condition("white noise, SNR 10 dB", white_noise(10.0)),
    "babble-15": Condition("four other speakers, SNR 15 dB", babble(15.0), needs="others"),
    "babble-5": Condition("four other speakers, SNR 5 dB", babble(5.0), needs="others"),
    "noise-15": Condition("recorded noise, SNR 15 dB", recorded_noise(15.0), needs="noises"),
    "noise-5": Condition("recorded noise, SNR 5 dB", recorded_noise(5.0), needs="noises"),
    "room-0.4": Condition("reverberation time 0.4 s, direct sound +5 dB", room(0.4, 5.0)),
    "room-1": Condition("reverberation time 1 s, direct sound 0 dB", room(1.0, 0.0)),
    "recorded-room": Condition("a recorded room", recorded_room, needs="rirs"),
    "quiet-30": Condition("30 dB quieter, 16 bits", lower(30.0)),
    "clipped-6": Condition("clipped, peak 6 dB above full scale", clipped(6.0)),
    "clipped-18": Condition("clipped, peak 18 dB above full scale", clipped(18.0)),
    "speech-3": Condition("the first 3 s of speech", beginning(3.0)),
    "speech-1.5": Condition("the first 1.5 s of speech", beginning(1.5)),
}
"""Name -> condition: one line each."""

NEEDED = {"noises": "--noises", "rirs": "--rirs", "others": "other speakers"}
"""How to provide each attribute of Surroundings."""


def chosen_conditions(
    names: Sequence[str], around: Surroundings
) -> tuple[dict[str, Condition], list[str]]:
    """Return the conditions of a test, the clean one first, and those that were left out, with the
    reasons.

    Args:
        names: names of the requested conditions; by default all that are possible.
        around: the sounds to add.

    Raises:
        SasvError: a requested condition is unknown or not possible.
    """
    unknown = [name for name in names if name not in CONDITIONS]
    if unknown:
        raise SasvError(f"unknown condition {listed(unknown)}; use one of: {', '.join(CONDITIONS)}")
    found = {CLEAN: CONDITIONS[CLEAN]}
    left_out: dict[str, list[str]] = {}
    for name in names or CONDITIONS:
        condition = CONDITIONS[name]
        reason = obstacle(condition, around)
        if not reason:
            found[name] = condition
        elif names:
            raise SasvError(f"the condition {name} ({condition.text}): {reason}")
        else:
            left_out.setdefault(reason, []).append(name)
    return found, [f"{', '.join(left)}: {reason}" for reason, left in left_out.items()]


def obstacle(condition: Condition, around: Surroundings) -> str:
    """Return the reason why a condition is not possible, or "" if it is."""
    if condition.needs and not getattr(around, condition.needs):
        return f"this needs {NEEDED[condition.needs]}"
    try:
        check_codecs([condition.codec] if condition.codec else [])
    except MissingExtra as error:
        return str(error)
    return ""


def apply_condition(
    name: str, wave: np.ndarray, seed: int, source: str, around: Surroundings
) -> np.ndarray:
    """Return a recording after a condition, float32 (samples,) at 16 kHz. It is not clipped, unless
    clipping is part of the condition.

    Args:
        name: one of CONDITIONS.
        wave: (samples,) at 16 kHz.
        seed: random seed of the test.
        source: name of the original recording; its copies receive the same noise.
        around: the sounds to add.
    """
    drawn = zlib.crc32(f"{name}:{source}".encode("utf-8", "surrogateescape"))
    changed = CONDITIONS[name].change(wave, np.random.default_rng([seed, drawn]), around)
    peak = float(np.abs(changed).max(initial=0.0))
    if peak > 1.0:
        changed = changed * (FULL_SCALE / peak)
    return np.ascontiguousarray(changed, np.float32)


def convolved(wave: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Return speech convolved with an impulse response, at the same level."""
    energy = max(float(np.square(response).sum()), 1e-18)
    heard = convolve(wave, response / np.sqrt(energy))
    power = float(np.square(heard).mean())
    if power == 0:
        return heard
    return heard * np.float32(np.sqrt(np.square(wave).mean() / power))


def stretched(wave: np.ndarray, samples: int) -> np.ndarray:
    """Return a number of samples of a recording, repeated if it is shorter."""
    return np.resize(wave, samples)
