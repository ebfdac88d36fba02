"""Changes between two starts of a run: relevant ones are refused, and irrelevant ones accepted."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from conftest import tiny_options
from sasv.checkpoints import load_checkpoint
from sasv.commands import train
from sasv.core.errors import CheckpointError, SasvError
from sasv.core.files import digest_of_file
from sasv.tables import load_utterances
from sasv.training import run_folder
from sasv.training.options import TrainOptions
from sasv.training.run_folder import RunFolder


@pytest.fixture
def run(trained, tmp_path):
    """Folder of a finished run."""
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def open_folder(options, processes=1):
    utterances = load_utterances(options.utterances, options.where)
    return RunFolder(Path(options.out), options, utterances, processes, options.allow_changed)


def rewrite(path, change):
    """Change a JSON file of a run."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def as_of_old(run, table):
    """Replace the records of a run by those of an older version, with only a digest of the table
    file.
    """
    facts = {"table_sha256": digest_of_file(table), "processes": 1}
    rewrite(run / "environment.json", lambda value: value.update(facts=facts))


def moved_table(corpus, folder):
    """Copy the corpus to ``folder``, and write its table again, with absolute paths."""
    shutil.copytree(corpus, folder)
    table = folder / "utterances.tsv"
    table.write_text(table.read_text().replace("\taudio/", f"\t{folder}/audio/"))
    return folder


def test_other_options_in_the_same_folder_are_refused(corpus, run, tmp_path):
    with pytest.raises(SasvError, match="contains a run with other options .seed was 0, now 5"):
        train(tiny_options(corpus, run, seed=5))
    moved = tmp_path / "moved"
    shutil.copytree(corpus, moved)
    table = moved / "utterances.tsv"
    same_place = tiny_options(corpus, run)
    table.write_text(table.read_text().replace("s0-0\t", "s0-zero\t"))
    with pytest.raises(SasvError, match="table_sha256 was"):
        train(replace(same_place, utterances=str(table), epochs=9))
    (run / "state.pt").write_bytes(b"junk")
    with pytest.raises(CheckpointError, match="damaged training state"):
        train(tiny_options(corpus, run))


def test_options_that_came_or_went_since_do_not_stop_a_run(corpus, run):
    def older(value):
        for name in ("keep_classes", "codec_share"):
            del value[name]
        value["forgotten"] = 7

    rewrite(run / "options.json", older)
    assert open_folder(tiny_options(corpus, run)).changed() == []
    assert open_folder(tiny_options(corpus, run, keep_classes=True)).changed() == [
        "keep_classes was False, now True"
    ]


def test_renamed_options_do_not_stop_a_run(corpus, run):
    @dataclass
    class Renamed(TrainOptions):
        RENAMED: ClassVar[dict[str, str]] = {"old_seed": "seed"}

    rewrite(run / "options.json", lambda value: value.update(old_seed=value.pop("seed")))
    options = Renamed(**vars(tiny_options(corpus, run)))
    assert open_folder(options).changed() == []
    assert open_folder(replace(options, seed=1)).changed() == ["seed was 0, now 1"]


def test_another_spelling_of_a_path_does_not_stop_a_run(corpus, run, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(corpus)
    monkeypatch.chdir(corpus.parent)
    for spelt in (
        tmp_path / "link",
        corpus.relative_to(corpus.parent),
        corpus / ".." / corpus.name,
    ):
        assert open_folder(tiny_options(spelt, run)).changed() == []


@pytest.mark.parametrize("old", [False, True])
def test_a_corpus_on_another_disk_does_not_stop_a_run(corpus, run, tmp_path, old):
    if old:
        as_of_old(run, corpus / "utterances.tsv")
    moved = moved_table(corpus, tmp_path / "moved")
    options = tiny_options(moved, run)
    assert open_folder(options).changed() == []
    with (moved / "trials_dev.tsv").open("a") as stream:
        stream.write("s6\ts6-2\ttarget\t-\n")
    assert open_folder(options).changed() == [
        f"dev_trials was '{corpus}/trials_dev.tsv', now '{moved}/trials_dev.tsv'"
    ]


def test_rows_not_trained_on_may_change(corpus, run, tmp_path):
    table = tmp_path / "utterances.tsv"
    text = (corpus / "utterances.tsv").read_text().replace("\taudio/", f"\t{corpus}/audio/")
    header, *rows = text.splitlines(keepends=True)
    table.write_text(header + "".join(row for row in rows if "\ttrain\t" in row))
    options = replace(tiny_options(corpus, run), utterances=str(table))
    assert open_folder(options).changed() == []
    table.write_text(
        header + "".join(row for row in rows if "\ttrain\t" in row and "s0-0\t" not in row)
    )
    (found,) = open_folder(options).changed()
    assert "other rows: table_sha256 was" in found


def test_the_weights_to_start_from_are_compared_by_content(corpus, trained, run, tmp_path):
    weights = tmp_path / "stage1.safetensors"
    shutil.copy(trained / "model.safetensors", weights)
    options = tiny_options(corpus, run, init=str(weights))
    assert open_folder(options).changed() == [f"init was '', now '{weights}'"]
    open_folder(options).describe()
    copy = tmp_path / "copy.safetensors"
    shutil.copy(weights, copy)
    assert open_folder(replace(options, init=str(copy))).changed() == []
    copy.write_bytes(b"another")
    assert open_folder(replace(options, init=str(copy))).changed() == [
        f"init was '{weights}', now '{copy}'"
    ]
    weights.write_bytes(b"another")
    assert open_folder(options).changed() == [f"init: {weights} changed"]
    as_of_old(run, corpus / "utterances.tsv")  # no digest on record
    assert open_folder(options).changed() == []
    weights.unlink()
    folder = open_folder(replace(options, init=str(copy)))
    assert folder.changed() == [] and folder.notes == [
        f"init was {weights}, which no longer exists; {copy} is assumed to be the same"
    ]


def test_changed_number_of_processes_is_detected(corpus, run):
    assert open_folder(tiny_options(corpus, run), 2).changed() == ["processes was 1, now 2"]


@pytest.mark.parametrize("name", ["options.json", "environment.json"])
@pytest.mark.parametrize("text", ["{", "[]", "3", "\xff", '{"seed": NaN}'])
def test_broken_run_record_is_reported_in_one_line(corpus, run, name, text):
    (run / name).write_text(text, encoding="latin-1")
    with pytest.raises(SasvError, match=f"{name}: (invalid|contains no object).*--allow-changed"):
        open_folder(tiny_options(corpus, run)).check()
    (run / name).write_text('{"facts": 3}')
    with pytest.raises(SasvError, match=r"environment.json: invalid|options \("):
        open_folder(tiny_options(corpus, run)).check()


def test_run_without_a_record_resumes_only_with_allow_changed(corpus, run):
    (run / "options.json").unlink()
    with pytest.raises(SasvError, match=r"its options.json is missing.*--allow-changed"):
        open_folder(tiny_options(corpus, run)).check()
    assert open_folder(tiny_options(corpus, run, allow_changed=True)).check()


@pytest.mark.slow
def test_run_interrupted_in_an_older_version_resumes(corpus, tmp_path, capsys):
    """Its record has fewer options and the digest of the table file, and its corpus was moved."""
    straight = train(tiny_options(corpus, tmp_path / "straight", epochs=2))
    train(tiny_options(corpus, tmp_path / "run", epochs=1))
    (tmp_path / "run/model.safetensors").unlink()
    as_of_old(tmp_path / "run", corpus / "utterances.tsv")
    rewrite(tmp_path / "run/options.json", lambda value: value.pop("codecs"))
    moved = moved_table(corpus, tmp_path / "moved")
    capsys.readouterr()
    model = train(tiny_options(moved, tmp_path / "run", epochs=2))
    assert "going on after epoch 1" in capsys.readouterr().err
    one, other = load_checkpoint(straight), load_checkpoint(model)
    assert all(torch.equal(value, other.encoder[name]) for name, value in one.encoder.items())


def test_changeable_names_are_train_options():
    names = set(vars(TrainOptions(utterances="u", out="o")))
    assert set(run_folder.INPUTS) <= names and names >= run_folder.CHANGEABLE
