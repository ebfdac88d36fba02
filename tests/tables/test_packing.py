"""Recordings of a table in tars: the same speech, the same bytes after a killed run, and
failures.
"""

import re
import shutil
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from conftest import tiny_options
from sasv.audio import read_audio
from sasv.commands import PackOptions, pack, train
from sasv.core.errors import SasvError
from sasv.tables import Table, load_utterances, packing
from sasv.tables.packing import bytes_of, key_of

WEBDATASET = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)")
"""How webdataset takes a name apart into key and extension."""


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


@pytest.fixture(scope="module")
def packed(corpus, tmp_path_factory):
    """The tiny corpus in shards, which tests must not change."""
    out = tmp_path_factory.mktemp("packed")
    pack(PackOptions(str(corpus / "utterances.tsv"), str(out), "200KB", num_workers=2))
    return out


def test_packed_table_equals_the_original_table(corpus, packed, tmp_path):
    plain = load_utterances(corpus / "utterances.tsv")
    moved = shutil.copytree(packed, tmp_path / "moved")
    found = load_utterances(moved / "utterances.tsv")
    assert found.ids == plain.ids
    assert found.table.columns == plain.table.columns
    for row in range(0, len(plain), 5):
        assert np.array_equal(read_audio(found.path(row)), read_audio(plain.path(row)))
    shards = Table.load(packed / "shards.tsv")
    assert len(shards) > 2
    assert shards.numbers("bytes").max() <= 200_000
    assert shards.numbers("members").sum() == len(plain)


def test_tars_are_plain_files_by_key(corpus, packed):
    keys = []
    for path in sorted(packed.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                assert member.isreg()
                keys.append(WEBDATASET.fullmatch(member.name)[1])
    assert keys == [key_of(name) for name in load_utterances(corpus / "utterances.tsv").ids]


def test_keys():
    names = ["a/b-c_1", "a.b", "a%2Eb", "/a", "a//b", "a b", "é#", "~x"]
    keys = [key_of(name) for name in names]
    assert keys[:2] == ["a/b-c_1", "a%2Eb"]
    assert len(set(keys)) == len(names)
    assert not any(set(key) & set(".# ~") or key.startswith("/") for key in keys)


@pytest.mark.parametrize("killed", [1, 7, 40])
def test_killed_pack_resumes_to_identical_bytes(corpus, packed, tmp_path, monkeypatch, killed):
    options = PackOptions(str(corpus / "utterances.tsv"), str(tmp_path / "out"), "200KB")
    added = []
    add = packing._Tar.add

    def die(self, member, data):
        added.append(member)
        if len(added) == killed:
            raise KeyboardInterrupt
        return add(self, member, data)

    with monkeypatch.context() as patch:
        patch.setattr(packing._Tar, "add", die)
        with pytest.raises(KeyboardInterrupt):
            pack(options)
    pack(options)
    assert files(tmp_path / "out") == files(packed)
    victim = tmp_path / "out" / "shard-000001.tar"
    victim.write_bytes(victim.read_bytes()[:-1000])
    pack(options)  # a shard that was cut is written again
    assert files(tmp_path / "out") == files(packed)


def test_changed_tar_is_detected(corpus, packed, tmp_path):
    out = shutil.copytree(packed, tmp_path / "out")
    data = bytearray((out / "shard-000000.tar").read_bytes())
    data[5000] ^= 1
    (out / "shard-000000.tar").write_bytes(data)
    options = PackOptions(str(corpus / "utterances.tsv"), str(out), "200KB", verify=True)
    with pytest.raises(SasvError, match=r"shard-000000\.tar: changed"):
        pack(options)
    with pytest.raises(SasvError, match="another table, or shards made with other options"):
        pack(replace(options, shard_size="1MB"))


@pytest.mark.parametrize("gone", [False, True])
def test_replaced_recordings_are_packed_again(tmp_path, gone):
    rng = np.random.default_rng(0)
    rows = [f"u{number}\tu{number}.wav\tann\n" for number in range(4)]
    (tmp_path / "table.tsv").write_text("utterance\tpath\tspeaker\n" + "".join(rows))
    for number in range(4):
        soundfile.write(tmp_path / f"u{number}.wav", 0.1 * rng.standard_normal(4000), 16000)
    options = PackOptions(str(tmp_path / "table.tsv"), str(tmp_path / "out"), "20KB")
    pack(options)
    before = files(tmp_path / "out")
    changed = 0.1 * rng.standard_normal(4000)
    soundfile.write(tmp_path / "u2.wav", changed, 16000)
    if gone:  # the shards stay valid without the files from which they were made
        for number in range(4):
            (tmp_path / f"u{number}.wav").unlink()
    pack(options)
    now = load_utterances(tmp_path / "out" / "utterances.tsv")
    assert (files(tmp_path / "out") == before) is gone
    if not gone:
        assert np.allclose(read_audio(now.path(2)), changed, atol=1e-4)


def test_flac_keeps_the_samples(tmp_path):
    rng = np.random.default_rng(0)
    waves = {"PCM_16": "int16", "PCM_24": "int32", "FLOAT": "float32"}
    rows = []
    for subtype in waves:
        wave = rng.normal(0, 0.1, (3000, 2)).astype(np.float32)
        soundfile.write(tmp_path / f"{subtype}.wav", wave, 22050, subtype=subtype)
        rows.append((subtype, f"{subtype}.wav", "s"))
    rows.append(("again", "PCM_16.wav", "s"))
    table = Table.build(dict(zip(("utterance", "path", "speaker"), zip(*rows))))
    table.save(tmp_path / "t.tsv")
    pack(PackOptions(str(tmp_path / "t.tsv"), str(tmp_path / "out"), audio="flac"))
    found = load_utterances(tmp_path / "out" / "utterances.tsv")
    assert [path.rpartition(".")[2] for path in found.paths] == ["flac", "flac", "wav", "flac"]
    assert found.paths[0] == found.paths[3]
    for path, (_, name, _) in zip(found.paths, rows):
        assert np.array_equal(read_audio(path), read_audio(tmp_path / name))


def test_bad_input(corpus, tmp_path):
    for text in ("1", "1GiB", "x", "-1GB", "nan"):
        with pytest.raises(SasvError, match="--shard-size"):
            bytes_of(text)
    assert bytes_of("1.5 mb") == 1_500_000
    table = Table.build({"utterance": ["a", "b"], "path": ["a.wav", "b.wav"], "speaker": ["s"] * 2})
    table.save(tmp_path / "utterances.tsv")
    with pytest.raises(SasvError, match="2 of 2 recordings cannot be packed"):
        pack(PackOptions(str(tmp_path / "utterances.tsv"), str(tmp_path / "out")))
    with pytest.raises(SasvError, match="this is the table to pack"):
        pack(PackOptions(str(tmp_path / "utterances.tsv"), str(tmp_path)))


@pytest.mark.slow
def test_training_on_shards_gives_the_same_weights(corpus, packed, trained, tmp_path):
    out = tmp_path / "run"
    train(replace(tiny_options(corpus, out), utterances=str(packed / "utterances.tsv")))
    plain = (trained / "model.safetensors").read_bytes()
    length = int.from_bytes(plain[:8], "little")
    again = (out / "model.safetensors").read_bytes()
    other = int.from_bytes(again[:8], "little")
    assert again[8 + other :] == plain[8 + length :]


def test_copies_of_packed_speech_lie_in_folders(packed, tmp_path):
    from sasv.commands import SynthesizeOptions, synthesize

    table = str(packed / "utterances.tsv")
    out = tmp_path / "copies"
    made = synthesize(SynthesizeOptions(table, str(out), ["8khz"], where="speaker=s6"))
    assert not any(".tar#" in path for path in made.paths)
    both = load_utterances(out / "utterances.tsv")
    assert all(len(read_audio(both.path(row))) for row in (0, len(both) - 1))


@pytest.mark.slow
def test_an_outage_ends_training_in_one_line(corpus, packed, tmp_path, monkeypatch):
    """A recording that cannot be fetched at the moment is not left out, and the traceback of a
    worker is not shown.
    """
    from sasv.core.errors import StorageError
    from sasv.storage.tars import TarMember

    def fail(self, start=0, stop=None):
        raise StorageError(f"{self.name}: cannot be fetched")

    monkeypatch.setattr(TarMember, "read", fail)
    changes = dict.fromkeys(("dev_utterances", "dev_enrolments", "dev_trials"), "")
    options = tiny_options(corpus, tmp_path / "run", num_workers=1, **changes)
    with pytest.raises(SasvError) as caught:
        train(replace(options, utterances=str(packed / "utterances.tsv")))
    assert re.fullmatch(r"\S+\.tar#\S+: cannot be fetched; run the same .*", str(caught.value))
