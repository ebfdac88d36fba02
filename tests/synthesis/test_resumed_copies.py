"""Copies always belong to the current sources: replaced sources, files of the user, truncated logs,
lost copies, and older versions.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sasv.commands import SynthesizeOptions, synthesize
from sasv.core.errors import SasvError
from sasv.core.files import digest_of_file
from sasv.synthesis.log import Log, Made
from sasv.synthesis.plan import plan_units
from sasv.tables import Table, Utterances, load_utterances

NAMES = ("a", "b", "c")


@pytest.fixture
def table(tmp_path, voice):
    """The table of three files."""
    (tmp_path / "speech").mkdir()
    for seed, name in enumerate(NAMES):
        soundfile.write(
            tmp_path / "speech" / f"{name}.wav", voice(8000, seed), 16000, subtype="FLOAT"
        )
    columns = {
        "utterance": NAMES,
        "path": [f"speech/{name}.wav" for name in NAMES],
        "speaker": ["s"] * 3,
    }
    Table.build(columns).save(tmp_path / "utterances.tsv")
    return tmp_path / "utterances.tsv"


def run(table, **options):
    return synthesize(
        SynthesizeOptions(str(table), str(table.parent / "out"), ["source-filter"], **options)
    )


def copy_of(table, name):
    return table.parent / "out" / "audio" / "source-filter" / f"{name}.flac"


def log_of(table):
    return next((table.parent / "out").glob("parts-*/1-of-1/made.jsonl"))


def made_lines(table):
    lines = [json.loads(line) for line in log_of(table).read_text().splitlines()]
    return [line for line in lines if len(line) > 1]


def as_an_older_version_left_it(table):
    """Write the log of a version in which copies did not record their source."""
    log_of(table).write_text("".join(json.dumps(line[:3]) + "\n" for line in made_lines(table)))


@pytest.mark.parametrize("older", [False, True])
def test_only_copies_of_a_replaced_source_are_made_again(table, voice, older):
    run(table)
    if older:
        as_an_older_version_left_it(table)
    before = {name: copy_of(table, name).stat().st_mtime_ns for name in NAMES}
    digest = digest_of_file(copy_of(table, "b"))
    run(table)
    assert {name: copy_of(table, name).stat().st_mtime_ns for name in NAMES} == before
    soundfile.write(table.parent / "speech" / "b.wav", voice(8000, 9), 16000, subtype="FLOAT")
    copies = run(table)
    assert digest_of_file(copy_of(table, "b")) != digest
    assert copies.table.texts("sha256") == [digest_of_file(copy_of(table, name)) for name in NAMES]
    assert all(copy_of(table, name).stat().st_mtime_ns == before[name] for name in ("a", "c"))


def test_files_of_the_user_are_neither_taken_nor_overwritten(table, voice):
    run(table, where="utterance=a")
    soundfile.write(copy_of(table, "b"), voice(8000, 9), 16000)
    theirs = copy_of(table, "b").read_bytes()
    with pytest.raises(
        SasvError,
        match=r"1 utterances could not be copied.*b\.flac: .*was not written by sasv.*move it away",
    ):
        run(table)
    assert copy_of(table, "b").read_bytes() == theirs
    assert load_utterances(table.parent / "out" / "utterances.tsv").where("label=spoof").ids == [
        "a~source-filter",
        "c~source-filter",
    ]
    copy_of(table, "b").unlink()
    assert len(run(table)) == 3


def test_files_without_settings_are_not_taken_for_copies(table):
    run(table)
    (copy_of(table, "a").parent / "settings.json").unlink()
    with pytest.raises(SasvError, match=r"contains files but no settings\.json"):
        run(table)
    (copy_of(table, "a").parent / "settings.json").write_text('{"seed": 0')
    with pytest.raises(SasvError, match=r"settings\.json: invalid JSON"):
        run(table)


@pytest.mark.parametrize("left", [1, 20, 100])
def test_truncated_log_is_repaired(table, left):
    whole = run(table).table.texts("sha256")
    data = log_of(table).read_bytes()
    log_of(table).write_bytes(data[:-left])
    for _ in range(2):
        assert run(table).table.texts("sha256") == whole
    assert all(json.loads(line) for line in log_of(table).read_text().splitlines())


@pytest.mark.parametrize("older", [False, True])
def test_copy_missing_from_the_log_is_recognised(table, older):
    run(table)
    if older:
        as_an_older_version_left_it(table)
    lines = log_of(table).read_text().splitlines(keepends=True)
    # The process was killed between writing the file and its line.
    log_of(table).write_text("".join(lines[:-1]))
    assert len(run(table)) == 3


def test_failed_copies_are_retried(table, voice):
    (table.parent / "speech" / "b.wav").write_bytes(b"broken")
    for _ in range(2):
        with pytest.raises(SasvError, match=r"1 utterances could not be copied.*b\.wav"):
            run(table)
    soundfile.write(table.parent / "speech" / "b.wav", voice(8000, 9), 16000, subtype="FLOAT")
    assert len(run(table)) == 3


def test_missing_copies_are_reported(table):
    assert run(table, shard="1/2") is None
    copy_of(table, "a").unlink()
    with pytest.raises(
        SasvError,
        match=r"1 of 3 copies are missing.*a\.flac.*run the same command",
    ):
        run(table, shard="2/2")
    assert run(table, shard="2/2") is None
    assert len(run(table, shard="1/2")) == 3


def test_partial_files_of_a_killed_process_are_removed(table):
    run(table)
    left = copy_of(table, "a").with_name(".a.4194304.part.flac")
    alive = copy_of(table, "a").with_name(f".a.{os.getppid()}.part.flac")
    for path in (left, alive):
        path.write_bytes(b"half")
    run(table)
    assert not left.exists() and alive.exists()


def test_name_that_is_too_long_loses_only_one_copy(tmp_path, voice):
    (tmp_path / "speech").mkdir()
    names = ["a", "x" * 251]  # with .wav 255 bytes, the longest name; with .flac one more
    for name in names:
        soundfile.write(tmp_path / "speech" / f"{name}.wav", voice(8000), 16000)
    columns = {
        "utterance": ["a", "x"],
        "path": [f"speech/{name}.wav" for name in names],
        "speaker": ["s"] * 2,
    }
    Table.build(columns).save(tmp_path / "utterances.tsv")
    with pytest.raises(SasvError, match="1 utterances could not be copied.*name is too long"):
        run(tmp_path / "utterances.tsv")
    assert copy_of(tmp_path / "utterances.tsv", "a").exists()


def test_copies_in_the_folder_of_the_speech_are_refused(table):
    options = SynthesizeOptions(str(table), str(table.parent / "speech" / "out"), ["source-filter"])
    with pytest.raises(SasvError, match="inside the folder of the speech"):
        synthesize(options)
    assert sorted(path.name for path in (table.parent / "speech").iterdir()) == [
        "a.wav",
        "b.wav",
        "c.wav",
    ]


@pytest.mark.parametrize(
    ("paths", "speakers", "out", "refused"),
    [
        (("libri/other/9/1/a.flac", "libri/clean/8/1/a.flac"), ("9", "8"), "libri/out", True),
        (("vox/id1/a.flac", "vox/id2/a.flac"), ("id1", "id2"), "vox/out", True),
        (("vox/id1/a.flac",), ("id1",), "vox/out", True),
        (("vox/id1/a.flac", "vox/id1/v/b.flac"), ("id1", "id1"), "vox/id1/v/out", True),
        (
            ("vox/id1/a.flac", "libri/other/9/1/a.flac"),
            ("id1", "9"),
            "out",
            False,
        ),  # the root of two corpora
        (("vox/id1/a.flac", "vox/id2/a.flac"), ("id1", "id2"), "out", False),
    ],
)
def test_folders_that_contain_the_speech_are_recognised(tmp_path, paths, speakers, out, refused):
    files = [str(tmp_path / path) for path in paths]
    table = Utterances(Table.build({"utterance": paths, "path": files, "speaker": speakers}))
    if refused:
        with pytest.raises(SasvError, match="inside the folder of the speech"):
            plan_units(table, ["world"], tmp_path / out / "audio")
    else:
        assert plan_units(table, ["world"], tmp_path / out / "audio").units


def test_two_channels_of_one_file_are_two_copies(tmp_path, voice):
    (tmp_path / "speech").mkdir()
    soundfile.write(
        tmp_path / "speech" / "call.wav", np.stack([voice(8000), voice(8000, 5)], 1), 16000
    )
    columns = {
        "utterance": ["x", "y"],
        "path": ["speech/call.wav"] * 2,
        "speaker": ["s", "t"],
        "channel": ["0", "1"],
    }
    Table.build(columns).save(tmp_path / "utterances.tsv")
    copies = run(tmp_path / "utterances.tsv")
    assert [Path(path).name for path in copies.paths] == ["call.wav-0.flac", "call.wav-1.flac"]
    assert len(set(copies.table.texts("sha256"))) == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_while_writing_the_log_is_reported_in_one_line(tmp_path):
    log = Log(tmp_path / "made.jsonl")
    log.stream.close()
    log.stream = open("/dev/full", "ab", buffering=0)  # noqa: SIM115 (closed below)
    with pytest.raises(SasvError, match=r"made\.jsonl: cannot write: the disk is full"):
        log.add(Made(0, 1.0, "x"))
    log.stream.close()
