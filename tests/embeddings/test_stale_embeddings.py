"""Embeddings always belong to the current files and model: files are repaired, replaced, or added,
the model or the folder changes, and processes are killed in between.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from conftest import make_corpus
from sasv.audio import write_audio
from sasv.embeddings import extract as extraction
from sasv.embeddings.extract import Embeddings, extract
from sasv.embeddings.model import load_model
from sasv.tables import load_utterances


@pytest.fixture(scope="module")
def models(trained):
    """The tiny model, and a model with other weights."""
    import torch

    first, second = (load_model(trained / "model.safetensors", "cpu") for _ in range(2))
    with torch.no_grad():
        for parameter in second.encoder.parameters():
            parameter.mul_(1.1)
    assert first.fingerprint != second.fingerprint
    return first, second


@pytest.fixture
def speech(tmp_path):
    return make_corpus(tmp_path / "speech", speakers=7, utterances=3, seconds=0.5)


def run(model, speech, out, **options):
    return extract(model, load_utterances(speech / "utterances.tsv"), out, quiet=True, **options)


def fresh(model, speech, tmp_path):
    return run(model, speech, tmp_path / f"fresh{len(list(tmp_path.iterdir()))}")


def same(found, expected):
    assert found.utterances == expected.utterances
    np.testing.assert_allclose(found.vectors, expected.vectors, atol=1e-5)


def counted(monkeypatch):
    """Count the rows that are embedded."""
    rows = []
    original = extraction.embed_rows

    def counting(model, utterances, batches, progress):
        rows.extend(int(row) for batch in batches for row in batch)
        return original(model, utterances, batches, progress)

    monkeypatch.setattr(extraction, "embed_rows", counting)
    return rows


def test_only_failures_are_retried(models, speech, tmp_path, monkeypatch):
    path = speech / "audio" / "s0-0.wav"
    kept = path.read_bytes()
    path.unlink()
    out = tmp_path / "out"
    assert set(run(models[0], speech, out).failures) == {"s0-0"}
    rows = counted(monkeypatch)
    assert "no such file" in run(models[0], speech, out).failures["s0-0"]
    assert rows == [0]
    path.write_bytes(kept)
    mended = run(models[0], speech, out)
    assert rows == [0, 0] and not mended.failures and not (out / "failed.tsv").exists()
    same(mended, fresh(models[0], speech, tmp_path))


def test_a_replaced_file_is_embedded_again(models, speech, tmp_path, monkeypatch):
    out = tmp_path / "out"
    before = run(models[0], speech, out)
    path = speech / "audio" / "s1-1.wav"
    write_audio(path, np.random.default_rng(0).standard_normal(8000).astype(np.float32) * 0.1)
    rows = counted(monkeypatch)
    after = run(models[0], speech, out)
    assert [after.utterances[row] for row in rows] == ["s1-1"]
    assert np.abs(after.vectors - before.vectors).max() > 0.01
    same(after, fresh(models[0], speech, tmp_path))


def test_two_tables_of_the_same_names_are_two_inputs(models, speech, tmp_path):
    other = tmp_path / "noisy"
    shutil.copytree(speech, other)
    for path in (other / "audio").iterdir():
        write_audio(path, np.random.default_rng(1).standard_normal(8000).astype(np.float32) * 0.1)
    for folder in (speech, other):
        same(run(models[0], folder, tmp_path / "out"), fresh(models[0], folder, tmp_path))


@pytest.mark.parametrize("at", ["embeddings.npy", "index.tsv", "embeddings.json"])
def test_a_kill_while_another_model_is_saved_never_mixes_two(
    models, speech, tmp_path, monkeypatch, at
):
    out = tmp_path / "out"
    run(models[0], speech, out)
    replace = Path.replace

    def killed(self, target):
        result = replace(self, target)
        if str(target).endswith(at):
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        run(models[1], speech, out)
    monkeypatch.undo()
    same(run(models[0], speech, out), fresh(models[0], speech, tmp_path))
    same(run(models[1], speech, out), fresh(models[1], speech, tmp_path))
    assert not list(out.glob("parts-*"))


@pytest.mark.slow
def test_broken_signature_is_ignored(models, speech, tmp_path):
    for text in ("{", "[]", '{"signature": 1}', ""):
        run(models[0], speech, tmp_path / "out")
        (tmp_path / "out" / "embeddings.json").write_text(text)
        same(run(models[0], speech, tmp_path / "out"), fresh(models[0], speech, tmp_path))


def test_folders_of_older_versions_are_read(models, speech, tmp_path):
    out = tmp_path / "out"
    found = run(models[0], speech, out)
    index = (out / "index.tsv").read_text().splitlines()
    (out / "index.tsv").write_text(
        "".join("\t".join(line.split("\t")[:2]) + "\n" for line in index)
    )
    (out / "embeddings.json").write_text(
        json.dumps({"signature": "x", "shape": [21, 24], "crops": 0})
    )
    same(Embeddings.load(out), found)
    same(run(models[0], speech, out), found)


def test_only_added_rows_are_embedded(models, speech, tmp_path, monkeypatch):
    table = load_utterances(speech / "utterances.tsv")
    extract(models[0], table.take(np.arange(10)), tmp_path / "out", quiet=True)
    rows = counted(monkeypatch)
    same(run(models[0], speech, tmp_path / "out"), fresh(models[0], speech, tmp_path))
    assert sorted(rows[: len(table) - 10]) == list(range(10, len(table)))
