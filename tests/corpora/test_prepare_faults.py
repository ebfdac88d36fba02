"""The files that sasv prepare finds below a folder, those that it skips and reports, and names that
a table cannot contain.
"""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sasv.audio import write_audio
from sasv.commands import PrepareOptions, prepare
from sasv.core.errors import SasvError
from sasv.corpora import tree
from sasv.tables import load_utterances


def wave(seconds=0.1):
    return 0.1 * np.sin(np.arange(int(16000 * seconds)) * 0.1).astype(np.float32)


def run(folder, out, **options):
    return load_utterances(
        prepare(PrepareOptions("folder", str(folder), str(out), **options)).utterances
    )


@pytest.fixture
def speech(tmp_path):
    for path in ("ann/1.wav", "ann/2.flac", "bob/1.wav"):
        write_audio(tmp_path / "in" / path, wave())
    return tmp_path / "in"


def test_every_format_of_libsndfile_is_found(tmp_path):
    kinds = {"sph": "NIST", "aiff": "AIFF", "au": "AU", "w64": "W64", "caf": "CAF", "WAV": "WAV"}
    (tmp_path / "in" / "ann").mkdir(parents=True)
    for suffix, kind in kinds.items():
        soundfile.write(
            tmp_path / "in" / "ann" / f"{kind}.{suffix}",
            wave(),
            16000,
            format=kind,
            subtype="PCM_16",
        )
    assert len(run(tmp_path / "in", tmp_path / "out")) == len(kinds)


def test_skipped_files_are_counted_and_reported(speech, tmp_path, capsys):
    (speech / "ann" / "notes.txt").touch()
    (speech / "ann" / "README").touch()
    write_audio(speech / "ann" / ".1.4711.part.wav", wave())  # of a killed run
    write_audio(speech / "bob" / "._1.wav", wave())  # of an archive made on macOS
    write_audio(speech / "__MACOSX" / "bob" / "1.wav", wave())
    os.mkfifo(speech / "bob" / "pipe.wav")
    (speech / "bob" / "loop").symlink_to(speech)
    (speech / "bob" / "gone.wav").symlink_to(speech / "nowhere.wav")
    assert run(speech, tmp_path / "out").ids == ["ann/1", "ann/2", "bob/1"]
    said = capsys.readouterr().err
    assert "2 not audio by their suffix" in said and ".txt 1" in said and "no suffix 1" in said
    assert (
        "3 hidden" in said
        and "1 not regular files" in said
        and "1 links to files that are not there" in said
        and "1 folders that links lead to a second time" in said
    )


def test_links_to_other_folders_are_followed_once(speech, tmp_path):
    write_audio(tmp_path / "elsewhere" / "3.wav", wave())
    for name in ("carl", "dora"):
        (speech / name).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "up").symlink_to(speech)
    assert run(speech, tmp_path / "out").ids == ["ann/1", "ann/2", "bob/1", "carl/3"]


def test_a_folder_that_cannot_be_read_is_an_error(speech, tmp_path, monkeypatch):
    original = os.scandir

    def refused(path):
        if str(path).endswith("bob"):
            raise PermissionError(13, "Permission denied", path)
        return original(path)

    monkeypatch.setattr(tree.os, "scandir", refused)
    with pytest.raises(SasvError, match=r"bob: this folder cannot be read \(Permission denied\)"):
        run(speech, tmp_path / "out")


def test_two_files_of_the_same_name_are_reported(speech, tmp_path):
    write_audio(speech / "ann" / "1.flac", wave())
    with pytest.raises(SasvError, match=r"ann/1\.flac and ann/1\.wav would both be called ann/1"):
        run(speech, tmp_path / "out")
    (speech / "ann" / "1.flac").unlink()
    write_audio(speech / "a,b" / "1.wav", wave())
    write_audio(speech / "a_b" / "1.wav", wave())
    with pytest.raises(SasvError, match=r"a,b/1\.wav and a_b/1\.wav would both"):
        run(speech, tmp_path / "out")


@pytest.mark.parametrize("mark", ["\t", "\n"])
def test_file_name_that_a_table_cannot_store(speech, tmp_path, mark):
    write_audio(speech / "ann" / f"x{mark}y.wav", wave())
    with pytest.raises(SasvError, match=r"1 names contain a tab .* \('ann/x\\.y\.wav'\)"):
        run(speech, tmp_path / "out")


@pytest.mark.skipif(sys.platform == "win32", reason="names are Unicode on Windows")
def test_a_name_that_is_not_utf8(speech, tmp_path):
    (speech / "bob" / "1.wav").rename(os.fsdecode(os.fsencode(speech) + b"/bob/caf\xe9.wav"))
    table = run(speech, tmp_path / "out")
    assert table.ids[-1] == "bob/caf\\xe9"
    assert Path(table.paths[-1]).exists()


def test_length_missing_from_the_header_is_counted(speech, tmp_path):
    pytest.importorskip("av", reason="PyAV is not installed (extra m4a)")
    path = speech / "ann" / "2.flac"
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    path.write_bytes(data)
    assert run(speech, tmp_path / "out").seconds.tolist() == [0.1] * 3


def test_a_channel_is_a_column(speech, tmp_path):
    table = run(speech, tmp_path / "out", channel="1")
    assert [table.channel(row) for row in range(3)] == ["1"] * 3
    with pytest.raises(SasvError, match="loudest, or a channel number counted from 0"):
        run(speech, tmp_path / "out", channel="left")


def test_recordings_without_speech_are_named_on_request(speech, tmp_path, capsys):
    table = run(speech, tmp_path / "out", check_speech=True)
    assert table.table.numbers("speech_seconds").tolist() == [0.0] * 3
    assert (
        "3 recordings contain less than 0.75 s of speech (ann/1, ann/2, bob/1)"
        in capsys.readouterr().err
    )
