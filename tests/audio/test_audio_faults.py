"""The format of audio is detected from its content, and its header is trusted only as far as
possible.
"""

import os
import struct
import sys

import numpy as np
import pytest
import soundfile

from conftest import shared
from sasv.audio import Length, channels, ffmpeg, measure, probe, read_audio, read_speech
from sasv.audio.formats import SUFFIXES, is_audio_name
from sasv.core.errors import AudioError, MissingExtra

SECONDS = 3


@pytest.fixture
def speech(voice):
    return voice(SECONDS * 16000)


@pytest.fixture
def av():
    return pytest.importorskip("av", reason="PyAV is not installed (extra m4a)")


def encode(av, path, wave, codec, form=None, rate=16000, bit_rate=None, **options):
    """Write a file with PyAV."""
    with av.open(str(path), "w", format=form, options=options) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        if bit_rate:
            stream.bit_rate = bit_rate
        whole = np.round(np.clip(wave, -1, 1) * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(whole[None], format="s16", layout="mono")
        frame.rate = 16000
        resampler = av.AudioResampler(
            format=stream.format, layout="mono", rate=rate, frame_size=stream.frame_size
        )
        pieces = [*resampler.resample(frame), *resampler.resample(None)]
        for piece in [*pieces, None]:
            container.mux(stream.encode(piece))


def without_total(flac):
    """Return the bytes of a FLAC file that an encoder wrote into a pipe, with a total of 0
    samples.
    """
    data = bytearray(flac)
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    return bytes(data)


CASES = {
    "aac.aac": 6.08,
    "amr.amr": 6.02,
    "concat_128_32.mp3": 120.168,
    "flac_total0.flac": 6.0,
    "gsm.wav": 6.0,
    "m4a_as.mp3": 6.064,
    "ogg_trailing_tag.ogg": 3.0,
    "speech_then_silence.aac": 120.064,
    "sph.sph": 6.0,
    "stereo_inverted.wav": 6.0,
    "stereo_left.wav": 6.0,
    "wav_size0_riff36.wav": 6.0,
    "wav_sox_7ffff000.wav": 6.0,
    "webm.webm": 6.0,
    "webm_as.ogg": 6.0,
}


@pytest.mark.parametrize("name", CASES)
def test_problem_files_of_other_programs_are_read(av, name):
    path = shared("cases", "audio", name)
    assert measure(path).seconds == pytest.approx(CASES[name], abs=0.001)
    assert len(read_speech(path, 1600)) == pytest.approx(CASES[name] * 16000, abs=16)


@pytest.mark.parametrize(
    "size", [0, 0x7FFFF000, 0x7FFFFFFF, 0x7FFFFFDB, 0x80000000, 0xFFFFFFFF, 0xFFFFFFDB]
)
def test_placeholder_sizes_in_wav_headers_are_ignored(tmp_path, av, speech, size):
    path = tmp_path / "x.wav"
    soundfile.write(path, speech, 16000)
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, 4, min(size + 36, 0xFFFFFFFF))
    struct.pack_into("<I", data, 40, size)
    path.write_bytes(data)
    assert measure(path).samples == len(speech)
    np.testing.assert_allclose(read_audio(path), speech, atol=1e-4)


def test_placeholder_sizes_in_au_and_w64_headers_are_ignored(tmp_path, speech):
    for kind, at, packed in (("AU", 8, struct.pack(">I", 0xFFFFFFFF)), ("W64", None, bytes(8))):
        path = tmp_path / f"x.{kind.lower()}"
        soundfile.write(path, speech, 16000, format=kind)
        data = bytearray(path.read_bytes())
        where = data.find(b"data") + 16 if at is None else at
        data[where : where + len(packed)] = packed
        path.write_bytes(data)
        assert len(read_audio(path)) == len(speech)


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "AU", "W64", "RF64", "NIST"])
def test_file_shorter_than_its_header_says_is_truncated(tmp_path, speech, kind):
    path = tmp_path / f"x.{kind.lower()}"
    soundfile.write(path, speech, 16000, format=kind, subtype="PCM_16")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(AudioError, match=r"truncated: the header promises .*1\.\d\d s are there"):
        read_audio(path)


def test_flac_without_length_is_read_measured_and_cropped(tmp_path, av, speech):
    path = tmp_path / "x.flac"
    soundfile.write(path, speech, 16000)
    path.write_bytes(without_total(path.read_bytes()))
    assert probe(path).length is Length.UNKNOWN
    assert measure(path).samples == len(speech)
    whole = read_audio(path)
    np.testing.assert_allclose(whole, speech, atol=1e-4)
    np.testing.assert_array_equal(read_audio(path, 10000, 8000), whole[10000:18000])
    np.testing.assert_array_equal(read_audio(path, samples=8000, place=0.5), whole[20000:28000])
    with pytest.raises(AudioError, match="no audio at sample 48000"):
        read_audio(path, 48000, 100)


def test_samples_are_counted_if_the_header_states_an_impossible_number(tmp_path, av, speech):
    path = tmp_path / "x.flac"
    soundfile.write(path, speech, 16000)
    data = bytearray(path.read_bytes())
    data[21] |= 0x0F
    data[22:26] = b"\xff" * 4  # 2^36 - 1 samples
    path.write_bytes(data)
    assert measure(path).samples == len(speech)
    assert len(read_audio(path, samples=1000, place=0.5)) == 1000


def test_length_estimated_from_the_bit_rate_is_not_trusted(tmp_path, av, speech):
    loud, quiet = np.resize(speech, 16000 * 10), np.zeros(16000 * 10, np.float32)
    for name, wave in (
        ("one", np.concatenate((loud, quiet))),
        ("other", np.concatenate((quiet, loud))),
    ):
        path = tmp_path / f"{name}.aac"
        encode(av, path, wave, "aac", "adts")
        assert probe(path).length is Length.ESTIMATED
        assert measure(path).seconds == pytest.approx(20, abs=0.2)
        assert len(read_audio(path)) == measure(path).samples


@pytest.mark.parametrize("subtype", ["PCM_16", "ULAW", "ALAC_16"])
def test_truncated_caf_is_reported(tmp_path, av, speech, subtype):
    path = tmp_path / "x.caf"
    soundfile.write(path, speech, 16000, format="CAF", subtype=subtype)
    assert len(read_audio(path)) == len(speech)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(AudioError, match=r"truncated: the header promises [\d,]+ bytes of audio"):
        measure(path)
    at = data.find(b"data") + 4
    path.write_bytes(data[:at] + b"\xff" * 8 + data[at + 8 :])  # a size of -1: to the end
    assert subtype == "ALAC_16" or len(read_audio(path)) == len(speech)


@pytest.mark.parametrize("form, codec", [("matroska", "libopus"), ("webm", "libopus")])
def test_container_much_shorter_than_its_stated_length_is_truncated(
    tmp_path, av, speech, form, codec
):
    path = tmp_path / "x.mka"
    encode(av, path, np.tile(speech, 3), codec, form, rate=48000)
    assert measure(path).seconds == pytest.approx(3 * len(speech) / 16000, abs=0.1)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(AudioError, match="truncated: the header promises"):
        measure(path)
    with pytest.raises(AudioError, match="truncated: the header promises"):
        read_audio(path)


def mp3(av, path, wave, bit_rate, xing, tags=False):
    encode(
        av,
        path,
        wave,
        "libmp3lame",
        "mp3",
        bit_rate=bit_rate,
        write_xing="1" if xing else "0",
        id3v2_version="4" if tags else "0",
    )
    return path.read_bytes()


@pytest.mark.parametrize("rates", [(128000, 32000), (32000, 128000)])
@pytest.mark.parametrize("xing", [False, True])
def test_joined_mp3_are_read_to_their_end(tmp_path, av, speech, rates, xing):
    parts = [
        mp3(av, tmp_path / f"{index}.mp3", speech, rate, xing) for index, rate in enumerate(rates)
    ]
    path = tmp_path / "joined.mp3"
    path.write_bytes(b"".join(parts))
    if xing and len(parts[1]) < 1 << 16:  # as short as a tag: make it longer
        path.write_bytes(parts[0] + 10 * parts[1])
        assert measure(path).seconds == pytest.approx(11 * SECONDS, abs=2)
    else:
        assert measure(path).seconds == pytest.approx(2 * SECONDS, abs=0.2)
    assert len(read_audio(path)) == measure(path).samples


def test_tags_between_joined_mp3_are_skipped(tmp_path, av, speech):
    parts = [mp3(av, tmp_path / "x.mp3", speech, rate, False, True) for rate in (64000, 24000)]
    path = tmp_path / "joined.mp3"
    path.write_bytes(b"".join(parts))
    assert len(read_audio(path)) / 16000 == pytest.approx(2 * SECONDS, abs=0.2)


@pytest.mark.parametrize("bit_rate", [24000, 32000, 64000])
@pytest.mark.parametrize("tags", [False, True])
@pytest.mark.parametrize("share", [1.0, 0.77])
def test_constant_bit_rate_mp3_needs_neither_a_header_nor_an_extra(
    tmp_path, av, speech, monkeypatch, bit_rate, tags, share
):
    path = tmp_path / "x.mp3"
    wave = speech[: int(share * len(speech))]
    mp3(av, path, wave, bit_rate, xing=False, tags=tags)
    monkeypatch.setattr(ffmpeg, "installed", lambda: False)
    assert probe(path).length is Length.EXACT
    assert len(read_audio(path)) / 16000 == pytest.approx(len(wave) / 16000, abs=0.2)


@pytest.mark.parametrize("same", [False, True])
def test_chained_ogg_is_read_whole(tmp_path, av, speech, same):
    soundfile.write(tmp_path / "a.ogg", speech, 16000)
    soundfile.write(tmp_path / "b.ogg", speech[::-1], 16000)
    first = (tmp_path / "a.ogg").read_bytes()
    second = first if same else (tmp_path / "b.ogg").read_bytes()
    (tmp_path / "chained.ogg").write_bytes(first + second)
    assert len(read_audio(tmp_path / "chained.ogg")) == pytest.approx(2 * len(speech), abs=2000)
    (tmp_path / "tagged.ogg").write_bytes(first + b"TAG" + bytes(100_000))
    assert len(read_audio(tmp_path / "tagged.ogg")) == len(speech)


@pytest.mark.parametrize(
    ("codec", "form", "rate"),
    [
        ("libopus", "webm", 48000),
        ("aac", "mov", 16000),
        ("aac", "3gp", 16000),
        ("ac3", "ac3", 48000),
    ],
)
def test_containers_are_chosen_by_content(tmp_path, av, speech, codec, form, rate):
    for suffix in ("wav", "mp3", "flac", "unknown"):
        path = tmp_path / f"x.{suffix}"
        encode(av, path, speech, codec, form, rate)
        found = read_audio(path)
        assert len(found) / 16000 == pytest.approx(SECONDS, abs=0.15)
        crop = read_audio(path, 20000, 8000)
        assert np.square(crop - found[20000:28000]).mean() < 1e-3 * np.square(crop).mean()


def test_unseekable_gsm_is_cropped(tmp_path, speech):
    soundfile.write(tmp_path / "x.wav", speech[::2], 8000, subtype="GSM610")
    whole = read_audio(tmp_path / "x.wav", rate=8000)
    np.testing.assert_array_equal(
        read_audio(tmp_path / "x.wav", 9000, 4000, rate=8000), whole[9000:13000]
    )


def test_unknown_codec_is_reported_in_one_line(tmp_path, av, speech):
    path = tmp_path / "x.m4a"
    encode(av, path, speech, "aac", "mp4")
    path.write_bytes(path.read_bytes().replace(b"mp4a", b"zzzz").replace(b"esds", b"xxxx"))
    with pytest.raises(AudioError, match=r"x\.m4a: its audio codec is unknown"):
        read_audio(path)


def test_a_playlist_is_not_followed(tmp_path, av, speech):
    encode(av, tmp_path / "secret.aac", speech, "aac", "adts")
    text = f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{tmp_path}/secret.aac\n#EXT-X-ENDLIST\n"
    (tmp_path / "list.m3u8").write_text(text)
    (tmp_path / "list.wav").write_text(text)
    for name in ("list.m3u8", "list.wav"):
        with pytest.raises(AudioError, match="not an audio file"):
            read_audio(tmp_path / name)


def test_missing_pyav_is_reported_in_one_line(tmp_path, av, speech, monkeypatch):
    encode(av, tmp_path / "x.wav", speech, "libopus", "webm", 48000)
    (tmp_path / "junk.wav").write_bytes(b"junk" * 1000)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtra, match=r"WebM.*pip install"):
        read_audio(tmp_path / "x.wav")
    with pytest.raises(AudioError, match=r"not an audio file.*pip install"):
        read_audio(tmp_path / "junk.wav")


@pytest.mark.parametrize("rate", [0, 1, 2, 999, 768001, 2**31 - 1])
def test_impossible_sample_rates_are_refused(tmp_path, speech, rate):
    path = tmp_path / "x.wav"
    soundfile.write(path, speech, 16000)
    data = bytearray(path.read_bytes())
    struct.pack_into("<II", data, 24, rate, 2 * rate % 2**32)
    path.write_bytes(data)
    with pytest.raises(AudioError, match=r"x\.wav: (the header says \d+ Hz|not an audio file)"):
        read_audio(path)


def test_five_hours_are_never_read_at_once(tmp_path):
    path = tmp_path / "long.wav"
    size = 5 * 3600 * 16000
    with open(path, "wb") as stream:  # a sparse file
        stream.write(b"RIFF" + struct.pack("<I", 36 + size) + b"WAVEfmt ")
        stream.write(
            struct.pack("<IHHIIHH", 16, 1, 1, 16000, 16000, 1, 8)
            + b"data"
            + struct.pack("<I", size)
        )
        stream.truncate(44 + size)
    with pytest.raises(AudioError, match="18000 s long, over the limit of 14400 s"):
        read_audio(path)


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    for path in (tmp_path / "pipe.wav", "/dev/zero"):
        with pytest.raises(AudioError, match="not a regular file"):
            read_audio(path)
    with pytest.raises(AudioError, match="cannot be opened .File name too long"):
        read_audio(tmp_path / ("x" * 300))
    with pytest.raises(AudioError, match="cannot be opened"):
        read_audio("a\0b.wav")
    (tmp_path / "file").touch()
    with pytest.raises(AudioError, match="no such file"):
        read_audio(tmp_path / "file" / "x.wav")


@pytest.mark.skipif(sys.platform == "win32", reason="names are Unicode on Windows")
@pytest.mark.parametrize("suffix", ["wav", "m4a"])
def test_file_names_of_arbitrary_bytes(tmp_path, av, speech, suffix):
    name = os.fsencode(tmp_path) + b"/caf\xe9." + suffix.encode()
    if suffix == "wav":
        soundfile.write(tmp_path / "plain", speech, 16000, format="WAV")
    else:
        encode(av, tmp_path / "plain", speech, "aac", "mp4")
    (tmp_path / "plain").rename(os.fsdecode(name))
    assert len(read_audio(os.fsdecode(name))) == pytest.approx(len(speech), abs=2048)


@pytest.mark.parametrize("value", [1e20, -1e30, 2000.0, np.inf, np.nan])
def test_impossible_sample_values_are_refused(tmp_path, speech, value):
    speech[12345] = value
    soundfile.write(tmp_path / "x.wav", speech, 16000, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"sample.* at 0\.772 s"):
        read_audio(tmp_path / "x.wav")


def test_channels(tmp_path, speech, voice, monkeypatch, capsys):
    monkeypatch.setattr(channels, "_said", [])
    rng = np.random.default_rng(0)
    hiss = (1e-4 * rng.standard_normal(len(speech))).astype(np.float32)
    silence = np.zeros_like(speech)
    layouts = {
        "inverted": [speech, -speech],
        "nearly": [speech, -speech + hiss],
        "left": [speech, silence],
        "centre": [hiss, hiss, speech, hiss, hiss, hiss],
    }
    for name, parts in layouts.items():
        soundfile.write(tmp_path / f"{name}.wav", np.stack(parts, 1), 16000, subtype="FLOAT")
        loud = read_audio(tmp_path / f"{name}.wav")
        np.testing.assert_allclose(loud, speech, atol=1e-3)
        np.testing.assert_array_equal(loud, read_audio(tmp_path / f"{name}.wav", channel="loudest"))
    said = capsys.readouterr().err
    assert said.count("loudest channel") == 1 and "--channel" in said
    other = voice(len(speech), 5)
    soundfile.write(tmp_path / "two.wav", np.stack([speech, other], 1), 16000, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(tmp_path / "two.wav"), (speech + other) / 2, atol=1e-6)
    np.testing.assert_array_equal(read_audio(tmp_path / "two.wav", channel="1"), other)
    np.testing.assert_array_equal(
        read_audio(tmp_path / "two.wav", 500, 900, channel="0"), speech[500:1400]
    )
    np.testing.assert_array_equal(read_audio(tmp_path / "left.wav", channel="mean"), speech / 2)
    with pytest.raises(
        AudioError, match="there is no channel 2; the recording has 2 channels, counted from 0"
    ):
        read_audio(tmp_path / "two.wav", channel="2")


def test_long_audio_is_resampled_in_pieces_alike(tmp_path, voice, monkeypatch):
    wave = np.resize(voice(44100), 44100 * 30)
    soundfile.write(tmp_path / "x.wav", np.stack([wave, wave], 1), 44100, subtype="FLOAT")
    whole = read_audio(tmp_path / "x.wav")
    monkeypatch.setattr("sasv.audio.io.WHOLE_SECONDS", 1.0)
    pieces = read_audio(tmp_path / "x.wav")
    assert abs(len(pieces) - len(whole)) <= 1
    np.testing.assert_allclose(pieces[: len(whole)], whole[: len(pieces)], atol=1e-5)


def test_list_of_audio_suffixes():
    assert {
        ".sph",
        ".aiff",
        ".au",
        ".w64",
        ".caf",
        ".mp4",
        ".m4b",
        ".webm",
        ".amr",
        ".3gp",
        ".wma",
    } <= SUFFIXES
    assert is_audio_name("A/B.WAV") and not is_audio_name("a.wav/b") and not is_audio_name(".wav")
