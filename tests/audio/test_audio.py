"""Reading audio: formats, sample rates, crops, and files that cannot be used."""

import struct

import numpy as np
import pytest
import soundfile

from sasv.audio import check_speech, probe, read_audio, read_speech, write_audio
from sasv.core.errors import AudioError


def energy_close(found, expected, tolerance):
    assert len(found) == len(expected)
    assert np.square(found - expected).mean() < tolerance * np.square(expected).mean()


@pytest.mark.parametrize(
    "suffix, tolerance", [("wav", 1e-6), ("flac", 1e-6), ("ogg", 0.05), ("mp3", 0.05)]
)
def test_formats(tmp_path, voice, suffix, tolerance):
    wave = voice(16000)
    path = tmp_path / f"x.{suffix}"
    soundfile.write(path, wave, 16000)
    assert probe(path).rate == 16000
    found = read_audio(path)
    assert found.dtype == np.float32
    energy_close(found, wave, tolerance)


def test_opus(tmp_path, voice):
    wave = voice(16000)
    soundfile.write(tmp_path / "x.opus", wave, 16000, format="OGG", subtype="OPUS")
    energy_close(read_audio(tmp_path / "x.opus"), wave, 0.1)


def encode_m4a(path, wave, rate=16000):
    av = pytest.importorskip("av", reason="PyAV is not installed (extra m4a)")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=rate, layout="mono")
        stream.bit_rate = 128000
        frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
        frame.rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


def test_m4a_whole_and_crop(tmp_path, voice):
    wave = voice(48000)
    encode_m4a(tmp_path / "x.m4a", wave)
    whole = read_audio(tmp_path / "x.m4a")
    assert abs(len(whole) - len(wave)) <= 2048
    crop = read_audio(tmp_path / "x.m4a", start=20000, samples=8000)
    energy_close(crop, whole[20000:28000], 1e-3)
    (tmp_path / "bad.m4a").write_bytes(b"nonsense" * 100)
    with pytest.raises(AudioError, match=r"bad\.m4a: not an audio file"):
        read_audio(tmp_path / "bad.m4a")


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_any_rate_and_channels_become_16k_mono(tmp_path, voice, rate):
    wave = voice(2 * rate)
    stereo = np.stack((wave, 0.5 * wave), axis=1)
    soundfile.write(tmp_path / "x.wav", stereo, rate, subtype="FLOAT")
    whole = read_audio(tmp_path / "x.wav")
    assert abs(len(whole) - 2 * 16000) <= 1
    # a crop that is resampled separately equals the same part of the whole recording
    for start, frames in ((0, 4000), (7001, 5000), (27000, 5000)):
        crop = read_audio(tmp_path / "x.wav", start=start, samples=frames)
        energy_close(crop, whole[start : start + frames], 1e-6)


def test_a_crop_reads_only_its_part(tmp_path, voice, monkeypatch):
    write_audio(tmp_path / "x.flac", voice(20 * 16000))
    asked = []
    original = soundfile.SoundFile.read
    monkeypatch.setattr(
        soundfile.SoundFile,
        "read",
        lambda self, frames=-1, **k: asked.append(frames) or original(self, frames, **k),
    )
    crop = read_audio(tmp_path / "x.flac", start=160000, samples=32000)
    assert asked == [32000]
    assert len(crop) == 32000


def test_place_selects_every_possible_start(tmp_path):
    ramp = np.arange(1000, dtype=np.float32) / 1000
    soundfile.write(tmp_path / "x.wav", ramp, 16000, subtype="FLOAT")
    assert read_audio(tmp_path / "x.wav", samples=400, place=0.0)[0] == 0
    assert read_audio(tmp_path / "x.wav", samples=400, place=0.9999)[-1] == ramp[-1]
    assert len(read_audio(tmp_path / "x.wav", samples=4000, place=0.5)) == 1000


def test_spaces_and_other_letters_in_a_path(tmp_path, voice):
    path = tmp_path / "Ünïcode 話者 1" / "a b.wav"
    write_audio(path, voice(8000))
    assert len(read_speech(path, 1600)) == 8000


def truncate(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def bad_files(tmp_path, voice):
    """Write bad files; return the name of each with a pattern that its message must match."""
    wave = voice(32000)
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("this is not audio\n" * 100)
    for suffix in ("wav", "flac", "ogg", "mp3"):
        soundfile.write(tmp_path / f"truncated.{suffix}", wave, 16000)
        truncate(tmp_path / f"truncated.{suffix}", 0.5)
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    broken = wave.copy()
    broken[1234] = np.nan
    soundfile.write(tmp_path / "nan.wav", broken, 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "short.wav", wave[:5], 16000)
    soundfile.write(tmp_path / "none.wav", wave[:0], 16000)
    return {
        "missing.wav": "no such file",
        "empty.wav": r"the file is empty \(0 bytes\)",
        "text.wav": "not an audio file",
        "truncated.wav": r"truncated: the header promises 2\.00 s",
        "truncated.flac": "truncated",
        "truncated.ogg": "truncated",
        "truncated.mp3": "truncated",
        "silent.wav": "silent",
        "nan.wav": r"NaN or infinite sample at 0\.077 s",
        "short.wav": "too short: 5 samples.*at least 1600",
        "none.wav": "contains no audio",
        ".": "a folder",
    }


def test_files_that_cannot_be_used_are_named_and_explained(tmp_path, voice):
    for name, message in bad_files(tmp_path, voice).items():
        with pytest.raises(AudioError, match=message) as caught:
            read_speech(tmp_path / name, 1600)
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_nonfinite_samples_in_a_crop_are_located_in_the_file(tmp_path, voice):
    wave = voice(32000)
    wave[24000] = np.inf
    soundfile.write(tmp_path / "inf.wav", wave, 16000, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"at 1\.500 s"):
        read_audio(tmp_path / "inf.wav", samples=16000, place=0.9)
    assert len(read_audio(tmp_path / "inf.wav", samples=16000, place=0.1)) == 16000


def test_two_hours_are_refused_before_they_are_read(tmp_path):
    path = tmp_path / "long.wav"
    size = 2 * 3600 * 16000 * 2
    with open(path, "wb") as stream:  # a sparse file of digital silence
        riff = (
            b"RIFF"
            + struct.pack("<I", 36 + size)
            + b"WAVEfmt "
            + struct.pack("<IHHIIHH", 16, 1, 1, 16000, 32000, 2, 16)
        )
        stream.write(riff + b"data" + struct.pack("<I", size))
        stream.truncate(44 + size)
    with pytest.raises(AudioError, match=r"7200 s long, over the limit of 300 s.*--max-seconds"):
        read_speech(path, 1600, max_seconds=300)
    assert len(read_audio(path, start=3600 * 16000, samples=16000)) == 16000


def test_waveforms_are_checked_too():
    with pytest.raises(AudioError, match="one channel"):
        check_speech(np.ones((2, 16000), np.float32), "waveform")
    with pytest.raises(AudioError, match="NaN"):
        check_speech(np.full(16000, np.nan, np.float32), "waveform")


def test_written_audio_is_clipped_not_wrapped(tmp_path):
    write_audio(tmp_path / "x.wav", np.array([1.5, -1.5, 0.5] * 100, np.float32))
    found = read_audio(tmp_path / "x.wav")
    assert found.max() > 0.99 and found.min() < -0.99
