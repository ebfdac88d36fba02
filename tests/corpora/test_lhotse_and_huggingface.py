"""Manifests of lhotse and datasets of Hugging Face, in and out."""

import gzip
import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from sasv.audio import read_audio
from sasv.commands import (
    ExportTableOptions,
    PackOptions,
    PrepareOptions,
    export_table,
    pack,
    prepare,
)
from sasv.core.errors import SasvError
from sasv.tables import Table, load_utterances

RATE = 16000


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """Four recordings of two speakers, one of two channels, and their table."""
    root = tmp_path_factory.mktemp("speech")
    rng = np.random.default_rng(0)
    for index in range(4):
        shape = (RATE, 2) if index == 3 else (RATE,)
        soundfile.write(root / f"r{index}.wav", 0.1 * rng.standard_normal(shape), RATE)
    columns = {
        "utterance": [f"u{index}" for index in range(4)],
        "path": [f"r{index}.wav" for index in range(4)],
        "speaker": ["ann", "bob", "ann", "bob"],
        "label": ["bonafide", "spoof", "bonafide", "bonafide"],
        "attack": ["-", "tts", "-", "-"],
        "seconds": ["1.000"] * 4,
        "split": ["train", "train", "dev-1", "dev-1"],
        "channel": ["-", "-", "-", "1"],
    }
    Table.build(columns, str(root / "utterances.tsv")).save(root / "utterances.tsv")
    return root


def prepared(corpus, path, out, **options):
    prepare(PrepareOptions(corpus, str(path), str(out), **options))
    return load_utterances(out / "utterances.tsv")


def waves(utterances):
    return [
        read_audio(path, channel=utterances.channel(row))
        for row, path in enumerate(utterances.paths)
    ]


def same(found, expected, *columns):
    for column in columns:
        assert found.table.texts(column) == expected.table.texts(column), column
    for ours, theirs in zip(waves(found), waves(expected), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def recording(speech, index, **changes):
    name = f"r{index}"
    source = {"type": "file", "channels": [0], "source": str(speech / f"{name}.wav")}
    found = {"id": name, "sources": [source], "sampling_rate": RATE, "num_samples": RATE}
    return {**found, "duration": 1.0, **changes}


def cut(speech, index, **changes):
    found = {
        "id": f"c{index}",
        "start": 0,
        "duration": 1.0,
        "channel": 0,
        "supervisions": [{"id": f"s{index}", "speaker": "ann", "gender": "F"}],
        "recording": recording(speech, index),
        "type": "MonoCut",
    }
    return {**found, **changes}


def manifest(path, *items):
    text = "".join(json.dumps(item) + "\n" for item in items).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def test_a_table_goes_to_lhotse_and_back(speech, tmp_path):
    written = export_table(ExportTableOptions(str(speech / "utterances.tsv"), str(tmp_path / "l")))
    expected = load_utterances(speech / "utterances.tsv")
    columns = ("utterance", "speaker", "split", "label", "attack", "channel", "seconds")
    same(prepared("lhotse", written, tmp_path / "cuts"), expected, *columns)
    same(
        prepared("lhotse", tmp_path / "l" / "supervisions.jsonl.gz", tmp_path / "pair"),
        expected,
        *columns,
    )
    before = written.read_bytes()
    export_table(ExportTableOptions(str(speech / "utterances.tsv"), str(tmp_path / "l")))
    assert written.read_bytes() == before


@pytest.mark.parametrize("audio", ["as-is", "flac"])
def test_a_table_goes_to_hugging_face_and_back(speech, tmp_path, audio):
    table = str(speech / "utterances.tsv")
    out = tmp_path / "h"
    options = ExportTableOptions(table, str(out), "huggingface", shard_size="40kB", audio=audio)
    export_table(options)
    files = sorted(path.name for path in (out / "data").iterdir())
    assert files == [
        f"{split}-0000{number}-of-00002.parquet"
        for split in ("dev_1", "train")
        for number in (0, 1)
    ]
    found = prepared("huggingface", out, tmp_path / "tables")
    rows = [found.rows[name] for name in ("u0", "u1", "u2", "u3")]
    columns = ("utterance", "speaker", "label", "attack", "channel", "seconds")
    same(found.take(np.array(rows)), load_utterances(table), *columns)
    # A second run finishes what is missing, and refuses another dataset.
    before = {path.name: path.stat().st_mtime_ns for path in (out / "data").iterdir()}
    (out / "data" / files[0]).unlink()
    export_table(options)
    after = {path.name: path.stat().st_mtime_ns for path in (out / "data").iterdir()}
    assert {name for name in files if before[name] != after[name]} == {files[0]}
    with pytest.raises(SasvError, match="contains shards of another table"):
        export_table(ExportTableOptions(table, str(out), "huggingface", where="split=train"))


def test_parts_of_recordings_become_files_of_their_own(speech, tmp_path):
    whole = cut(speech, 0)
    part = cut(speech, 1, id="c1,x", start=0.25, duration=0.5)
    stereo = {"type": "file", "channels": [3, 5], "source": str(speech / "r3.wav")}
    right = cut(speech, 3, channel=5, duration=0.5)
    right["recording"]["sources"] = [stereo]
    path = manifest(tmp_path / "m" / "cuts.jsonl", whole, part, right)
    found = prepared("lhotse", path, tmp_path / "out")
    assert found.ids == ["c0", "c1_x", "c3"]
    assert found.table.texts("gender") == ["F"] * 3
    r1 = read_audio(speech / "r1.wav")
    r3 = read_audio(speech / "r3.wav", channel="1")
    expected = [read_audio(speech / "r0.wav"), r1[4000:12000], r3[:8000]]
    for ours, theirs in zip(waves(found), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1 / 32768)
    assert found.table.text("path", 0) == str(speech / "r0.wav")


def test_lhotse_shar_and_split_names(speech, tmp_path):
    shar = tmp_path / "shar"
    item = cut(speech, 0, id="a.b-0")
    item["recording"]["sources"] = [{"type": "shar", "channels": [0], "source": ""}]
    manifest(shar / "cuts.000000.jsonl.gz", item)
    with tarfile.open(shar / "recording.000000.tar", "w") as tar:
        tar.add(speech / "r0.wav", "a.b-0.wav")
        tar.add(speech / "utterances.tsv", "a.b-0.json")
    found = prepared("lhotse", shar, tmp_path / "out")
    np.testing.assert_array_equal(waves(found)[0], read_audio(speech / "r0.wav"))
    manifest(tmp_path / "p" / "x_recordings_train-5.jsonl.gz", recording(speech, 0))
    supervision = {"id": "s", "recording_id": "r0", "start": 0, "duration": 1.0, "speaker": "z"}
    manifest(tmp_path / "p" / "x_supervisions_train-5.jsonl.gz", supervision)
    found = prepared("lhotse", tmp_path / "p", tmp_path / "out")
    assert found.table.texts("split") == ["train-5"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "MixedCut"}, "is a MixedCut, not speech as it was recorded"),
        ({"supervisions": []}, "has 0 speakers; a cut needs one"),
        ({"supervisions": [{"speaker": "a"}, {"speaker": "b"}]}, "has 2 speakers"),
        ({"recording": None}, "has no recording; sasv needs audio"),
        ({"duration": "long"}, "long is not a number of seconds"),
        ({"start": -1}, "-1 is not a number of seconds"),
        ({"channel": 4}, "channels 4 are not those of one source"),
        ({"channel": "left"}, "channel left is not a number"),
        ({"recording": {"duration": 1}}, "its recording has no sources"),
        (
            {"recording": {"duration": 1, "transforms": [{"name": "Speed"}]}},
            "is changed by Speed when it is read",
        ),
        (
            {
                "recording": {
                    "duration": 1,
                    "sources": [{"type": "command", "channels": [0], "source": "rm x"}],
                }
            },
            r"is a source of type command \(rm x\), which sasv does not read",
        ),
        (
            {
                "recording": {
                    "duration": 1,
                    "sources": [{"type": "shar", "channels": [0], "source": ""}],
                }
            },
            "is in a shard of audio",
        ),
    ],
)
def test_cuts_that_are_not_speech_as_recorded(speech, tmp_path, changes, message):
    path = manifest(tmp_path / "m" / "cuts.jsonl", cut(speech, 0), cut(speech, 1, **changes))
    with pytest.raises(SasvError, match=rf"cuts\.jsonl, line 2: c1.*{message}"):
        prepared("lhotse", path, tmp_path / "out")


def test_broken_manifests(speech, tmp_path):
    path = manifest(tmp_path / "m" / "cuts.jsonl", cut(speech, 0))
    path.write_text(path.read_text() + '{"id": "c1", "sta')
    with pytest.raises(SasvError, match="line 2: broken JSON; was the manifest cut short"):
        prepared("lhotse", path, tmp_path / "out")
    path.write_text("3\n")
    with pytest.raises(SasvError, match="line 1: not an object of a manifest"):
        prepared("lhotse", path, tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SasvError, match="contains no manifest of lhotse"):
        prepared("lhotse", tmp_path / "empty", tmp_path / "out")
    manifest(tmp_path / "r" / "recordings.jsonl", recording(speech, 0))
    for place in (tmp_path / "r", tmp_path / "r" / "recordings.jsonl"):
        with pytest.raises(SasvError, match=r"supervisions"):
            prepared("lhotse", place, tmp_path / "out")
    gone = cut(speech, 0)
    gone["recording"]["sources"][0]["source"] = "gone.wav"
    with pytest.raises(SasvError, match="1 of 1 listed files are missing"):
        prepared("lhotse", manifest(tmp_path / "g" / "cuts.jsonl", gone), tmp_path / "out")


def test_a_table_of_tars_cannot_go_to_lhotse(speech, tmp_path):
    pack(PackOptions(str(speech / "utterances.tsv"), str(tmp_path / "packed")))
    with pytest.raises(SasvError, match="4 recordings are members of tars"):
        export_table(
            ExportTableOptions(str(tmp_path / "packed" / "utterances.tsv"), str(tmp_path / "l"))
        )


def dataset(path, audio, kind="Audio", **columns):
    """Write a dataset as ``datasets`` does: Parquet, or the Arrow stream of save_to_disk."""
    features = {"audio": {"_type": kind}}
    features |= {name: {"_type": "Value", "dtype": "string"} for name in columns}
    if "label" in columns:
        features["label"] = {"_type": "ClassLabel", "names": ["spoof", "bonafide"]}
    noted = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table({"audio": audio, **columns}).replace_schema_metadata(noted)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
        return path
    with pa.OSFile(str(path), "wb") as stream, pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    (path.parent / "state.json").write_text(json.dumps({"_data_files": [{"filename": path.name}]}))
    return path


def wav(index):
    stream = io.BytesIO()
    wave = 0.1 * np.random.default_rng(index).standard_normal(1600)
    soundfile.write(stream, wave, RATE, format="WAV")
    return stream.getvalue()


def test_datasets_written_by_save_to_disk_are_read(speech, tmp_path):
    root = tmp_path / "d"
    inside = [{"bytes": wav(index), "path": f"r{index}.wav"} for index in range(2)]
    outside = [{"bytes": None, "path": str(speech / f"r{index}.wav")} for index in range(2)]
    dataset(
        root / "train" / "data-00000-of-00001.arrow", inside, client_id=["x", "y"], label=[0, 1]
    )
    dataset(
        root / "test" / "data-00000-of-00001.arrow", outside, client_id=["x", "y"], label=[1, 1]
    )
    (root / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    found = prepared("huggingface", root, tmp_path / "out")
    assert found.ids == ["train/r0", "train/r1", "test/r0", "test/r1"]
    assert found.table.texts("speaker") == ["x", "y", "x", "y"]
    assert found.table.texts("label") == ["spoof", "bonafide", "bonafide", "bonafide"]
    assert found.table.texts("split") == ["train", "train", "test", "test"]
    expected = [soundfile.read(io.BytesIO(wav(index)))[0] for index in range(2)]
    expected += [read_audio(speech / f"r{index}.wav") for index in range(2)]
    for ours, theirs in zip(waves(found), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-7)


def test_columns_of_other_names_and_kinds(speech, tmp_path):
    path = dataset(tmp_path / "x.parquet", [wav(0), wav(1)], "Value", who=["x", "y"], label=[7, 8])
    with pytest.raises(SasvError, match=r"known to contain the speaker; it has audio, who, label"):
        prepared("huggingface", path, tmp_path / "out")
    table = pa.table({"rec": ["r0.wav", "r1.wav"], "who": ["x", "y"], "label": ["up", "down"]})
    pq.write_table(table, speech / "own.parquet")
    columns = {"audio": "rec", "speaker": "who"}
    with pytest.raises(SasvError, match="unknown label 'up' of r0"):
        prepared("huggingface", speech / "own.parquet", tmp_path / "out", columns=columns)
    table = table.drop_columns("label")
    pq.write_table(table, speech / "own.parquet")
    found = prepared("huggingface", speech / "own.parquet", tmp_path / "out", columns=columns)
    assert found.ids == ["r0", "r1"]
    for wrong, message in (({"who": "who"}, "--columns names who"), ({"speaker": "z"}, "column z")):
        with pytest.raises(SasvError, match=message):
            prepared("huggingface", speech / "own.parquet", tmp_path / "out", columns=wrong)
    with pytest.raises(SasvError, match="--columns can only be used with the corpus huggingface"):
        prepared("lhotse", speech, tmp_path / "out", columns=columns)


def test_broken_datasets(tmp_path):
    good = dataset(tmp_path / "x.parquet", [{"bytes": wav(0), "path": None}], speaker=["a"])
    (tmp_path / "cut.parquet").write_bytes(good.read_bytes()[:200])
    arrow = dataset(tmp_path / "s" / "data.arrow", [{"bytes": wav(0), "path": None}], speaker=["a"])
    arrow.write_bytes(arrow.read_bytes()[:1000])
    numbers = dataset(tmp_path / "n.parquet", [[0.1, 0.2]], "Sequence", speaker=["a"])
    nobody = dataset(tmp_path / "y.parquet", [{"bytes": wav(0), "path": None}], speaker=[None])
    empty = dataset(tmp_path / "z.parquet", [{"bytes": None, "path": None}], speaker=["a"])
    (tmp_path / "none").mkdir()
    for path, message in (
        (tmp_path / "cut.parquet", "not a Parquet or Arrow file, or truncated"),
        (tmp_path / "s", "not a Parquet or Arrow file, or truncated"),
        (numbers, "its audio is list<.*>, not a recording"),
        (nobody, "row 0: has no speaker"),
        (empty, "row 0: has no audio"),
        (tmp_path / "none", "contains no dataset.*hf download"),
        (tmp_path / "user" / "name", "no such folder"),
    ):
        with pytest.raises(SasvError, match=message):
            prepared("huggingface", path, tmp_path / "out")
    (tmp_path / "s" / "state.json").write_text('{"_data_files": [{"filename": "gone.arrow"}]}')
    with pytest.raises(SasvError, match=r"gone\.arrow: this file is listed"):
        prepared("huggingface", tmp_path / "s", tmp_path / "out")


@pytest.mark.long
@pytest.mark.slow
def test_lhotse_itself_reads_and_writes_them(speech, tmp_path):
    lhotse = pytest.importorskip("lhotse", reason="lhotse is not installed: pip install lhotse")
    written = export_table(ExportTableOptions(str(speech / "utterances.tsv"), str(tmp_path / "l")))
    cuts = lhotse.CutSet.from_file(written).to_eager()
    lhotse.validate(cuts, read_data=True)
    for name, kind in (("recordings", "RecordingSet"), ("supervisions", "SupervisionSet")):
        lhotse.validate(getattr(lhotse, kind).from_file(tmp_path / "l" / f"{name}.jsonl.gz"))
    expected = load_utterances(speech / "utterances.tsv")
    for one, wave in zip(cuts, waves(expected), strict=True):
        np.testing.assert_array_equal(one.load_audio()[0], wave)
    windows = cuts.cut_into_windows(0.4).to_eager()
    windows.to_file(tmp_path / "windows.jsonl.gz")
    found = prepared("lhotse", tmp_path / "windows.jsonl.gz", tmp_path / "out")
    (tmp_path / "shar").mkdir()
    windows.to_shar(tmp_path / "shar", fields={"recording": "flac"}, shard_size=5)
    in_shards = prepared("lhotse", tmp_path / "shar", tmp_path / "out-shar")
    for row, one in enumerate(windows):
        theirs = one.load_audio()[0]
        np.testing.assert_allclose(waves(found)[row], theirs, atol=1 / 32768)
        np.testing.assert_allclose(waves(in_shards)[row], theirs, atol=1 / 32768)
    windows.perturb_speed(1.1).to_file(tmp_path / "fast.jsonl")
    with pytest.raises(SasvError, match="is changed by Speed"):
        prepared("lhotse", tmp_path / "fast.jsonl", tmp_path / "out")
    windows.pad(2.0).to_file(tmp_path / "padded.jsonl")
    with pytest.raises(SasvError, match="is a MixedCut"):
        prepared("lhotse", tmp_path / "padded.jsonl", tmp_path / "out")


@pytest.mark.long
@pytest.mark.slow
def test_hugging_face_itself_reads_and_writes_them(speech, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip(
        "datasets", reason="datasets is not installed: pip install datasets"
    )
    table = str(speech / "utterances.tsv")
    export_table(ExportTableOptions(table, str(tmp_path / "h"), "huggingface"))
    read = datasets.load_dataset(str(tmp_path / "h"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(split) for name, split in read.items()} == {"train": 2, "dev_1": 2}
    assert read["train"].features["label"].names == ["bonafide", "spoof"]
    assert read["train"]["utterance"][:] == ["u0", "u1"]
    plain = datasets.DatasetDict(
        {
            name: split.cast_column("audio", datasets.Audio(decode=False))
            for name, split in read.items()
        }
    )
    assert plain["train"][0]["audio"]["bytes"] == (speech / "r0.wav").read_bytes()
    read.save_to_disk(tmp_path / "saved")
    found = prepared("huggingface", tmp_path / "saved", tmp_path / "out")
    rows = np.array([found.rows[name] for name in ("u0", "u1", "u2", "u3")])
    columns = ("utterance", "speaker", "label", "attack", "channel", "seconds")
    same(found.take(rows), load_utterances(table), *columns)
