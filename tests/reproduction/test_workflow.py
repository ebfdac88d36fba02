"""Steps with a memory, and the rows of the published table: planned, run at tiny scale, resumed, redone."""

import json
import shlex
from pathlib import Path

import pytest

from sasv import cli
from sasv.commands import ReproduceOptions, reproduce
from sasv.commands import _stages as stages
from sasv.core.errors import SasvError
from sasv.reproduction import Step, carry_out, plan_lines
from sasv.reproduction import rows as table_rows
from sasv.reproduction.rows import ROWS, parse_rows
from sasv.tables import load_scores, load_utterances
from sasv.weights import find


@pytest.fixture
def two_steps(tmp_path):
    """A function (options) -> two steps, the second reading what the first wrote; and what ran."""
    ran = []
    source = tmp_path / "source"
    source.write_text("1")

    def make(**options):
        def first():
            ran.append("first")
            (tmp_path / "a" / "out").write_text(source.read_text() + options.get("mark", ""))

        def second():
            ran.append("second")
            (tmp_path / "b" / "out").write_text((tmp_path / "a" / "out").read_text())

        return [
            Step("first", "do a", first, tmp_path / "a", ["out"], options, [source], 1.0, 2.0),
            Step("second", "do b", second, tmp_path / "b", ["out"], {}, [tmp_path / "a" / "out"], 0.5, 1.0),
        ]

    return make, ran, source, tmp_path


def test_what_is_done_is_skipped_and_what_changed_is_redone(two_steps, capsys, monkeypatch):
    make, ran, source, folder = two_steps
    carry_out(make())
    assert ran == ["first", "second"]
    carry_out(make())
    assert ran == ["first", "second"] and "[1/2] first: done already" in capsys.readouterr().err
    carry_out(make(mark="x"))
    assert ran == ["first", "second"] * 2
    said = capsys.readouterr().err
    assert "first: mark was None, now 'x', again from its beginning" in said and "second: " in said
    assert f"{folder / 'a' / 'out'} changed" in said
    source.write_text("1x")  # the first is done again, but gives other bytes only for another mark
    carry_out(make(mark=""))
    assert ran == [*["first", "second"] * 2, "first"] and "source changed" in capsys.readouterr().err
    monkeypatch.setattr("sasv.core.version.__version__", "9.9")
    carry_out(make(mark=""))
    assert "sasv was 0.1.0, now 9.9" in capsys.readouterr().err


def test_an_interrupted_step_goes_on_and_keeps_its_folder(two_steps, capsys):
    make, ran, _, folder = two_steps
    steps = make()

    def broken():
        (folder / "b" / "half").write_text("kept")
        raise SasvError("killed")

    steps[1].run = broken
    with pytest.raises(SasvError, match="killed"):
        carry_out(steps)
    capsys.readouterr()
    carry_out(make())
    assert (folder / "b" / "half").exists() and "second: interrupted, going on" in capsys.readouterr().err
    (folder / "a" / "out").unlink()
    carry_out(make())
    assert "first: out is gone, going on" in capsys.readouterr().err
    (folder / "a" / "step.json").write_text("{")
    with pytest.raises(SasvError, match="step.json: broken .* to begin this step anew"):
        carry_out(make())


def test_a_plan_says_what_would_happen(two_steps):
    make, ran, _, _ = two_steps
    lines = plan_lines(make())
    assert lines[0] == "[1/2] first: not begun; about 1:00:00, 2.00 GB" and lines[1] == "  do a"
    assert lines[-1] == "in all about 1:30:00 and 3.00 GB, estimated"
    assert not ran
    carry_out(make())
    lines = plan_lines(make(mark="x"))
    assert "now 'x'" in lines[0] and "where the steps before it change" in lines[2]
    assert plan_lines(make())[-1] == "in all about 0.0 s and 0.00 GB, estimated"
    step = make()[0]
    step.run = lambda: None
    step.outputs = ["other"]
    with pytest.raises(SasvError, match="first: did not leave .*other"):
        carry_out([step])


def test_the_rows_are_those_of_the_publication():
    assert [row.number for row in parse_rows("all")] == list(range(1, 12))
    assert ROWS[7].words() == ("Vox2 bna", "Vox2 bna+cs", "LA bna+spf")
    assert ROWS[7].lineage("train") == ["stage1", "stage1_stage2-vox2", "stage1_stage2-vox2_stage3-train"]
    assert ROWS[9].lineage("train+dev") == ["stage2-la-train+dev", "stage2-la-train+dev_stage3-train+dev"]
    assert ROWS[2].lineage("train") == ["stage1"] and not ROWS[6].needs_train_set() and ROWS[10].needs_train_set()
    assert find(11, "ska-tdnn", "train").published == 2.48
    for text in ("0", "12", "x", "1;2"):
        with pytest.raises(SasvError, match="no row of the published table"):
            parse_rows(text)


def tiny(out, **changes):
    values = {"row": 7, "scale": "tiny", "voices": 16, "epochs": 1, "batches": 2, "pairs": 2, "encoder": "ecapa-tdnn"}
    return ReproduceOptions(out=str(out), **(values | changes))


@pytest.fixture
def small(monkeypatch):
    """Encoders so small that a step takes a second."""
    from conftest import SMALL

    monkeypatch.setattr(stages, "TINY_SIZES", SMALL)


@pytest.mark.slow
def test_a_row_runs_resumes_and_is_redone(tmp_path, small, monkeypatch, capsys):
    options = tiny(tmp_path / "r")
    real = stages.importlib.import_module("sasv.commands._train").train
    calls = []

    def dying(chosen):
        calls.append(chosen.out)
        if len(calls) == 2:
            raise SasvError("the machine went down")
        return real(chosen)

    monkeypatch.setattr("sasv.commands._train.train", dying)
    with pytest.raises(SasvError, match="went down"):
        reproduce(options)
    (result,) = reproduce(options)
    err = capsys.readouterr().err
    assert "train ecapa-tdnn, stage1: done already" in err and "stage1_stage2-vox2: interrupted, going on" in err
    assert len(calls) == 4  # stage 1 once, stage 2 twice, stage 3 once
    assert result.metrics["sasv_eer"] is not None and result.published is None
    scores = load_scores(tmp_path / "r/evaluation/ecapa-tdnn/stage1_stage2-vox2_stage3-train+dev/scores.tsv")
    assert set(scores.attacks[1]) == {"-", "source-filter"}  # an attack that no stage has heard
    parts = {name: load_utterances(tmp_path / f"r/tables/{name}/utterances.tsv") for name in ("vox2", "la")}
    assert not set(parts["vox2"].speakers[1]) & set(parts["la"].speakers[1])
    trained = parts["la"].where("split=train")
    assert set(trained.attacks[1]) == {"-", "world"}
    assert not set(trained.speakers[1]) & set(parts["la"].where("split=eval").speakers[1])
    reproduce(options)
    assert len(calls) == 4
    capsys.readouterr()
    reproduce(tiny(tmp_path / "r", batches=1))
    assert "batches was 2, now 1, again from its beginning" in capsys.readouterr().err and len(calls) == 7
    table = (tmp_path / "r/table/report.md").read_text()
    assert "Tiny scale on synthetic voices" in table and "Vox2 bna+cs" in table
    assert json.loads((tmp_path / "r/table.json").read_text())[0]["row"] == 7


@pytest.mark.slow
def test_the_whole_table_of_parts_of_the_corpora(corpora, tmp_path, small, capsys):
    found = reproduce(
        tiny(
            tmp_path, row=0, rows="all", encoder="ecapa-tdnn", voxceleb2=str(corpora / "vox2"),
            asvspoof2019=str(corpora / "la" / "LA"), vocoders=["griffin-lim"], batches=1,
        )
    )  # fmt: skip
    # rows 2, 4 and 6 do not train on ASVspoof2019: one model for both training sets
    assert len(found) == 11 * 2 - 3 and {result.train_set for result in found} == {"train", "train+dev"}
    assert all(result.metrics["sasv_eer"] is not None for result in found)
    out = capsys.readouterr().out
    assert "ecapa-tdnn train+dev" in out and "parts of the corpora" in out


@pytest.mark.slow
def test_published_figures_stand_beside_ours(tmp_path, small):
    (result,) = reproduce(tiny(tmp_path, row=2, encoder="mfa-conformer", train_set="train"))
    assert result.published == 20.22
    text = (tmp_path / "table/report.md").read_text()
    assert "| 20.22 |" in text and "mfa-conformer train" in text


@pytest.mark.slow
def test_the_full_plan_is_made_of_commands_that_parse(corpora, capsys):
    folders = {"voxceleb2": str(corpora / "vox2"), "asvspoof2019": str(corpora / "la" / "LA")}
    options = ReproduceOptions(rows="all", dry_run=True, voxceleb1="v1", noises="musan", rirs="rirs", **folders)
    assert reproduce(options) == []
    out = capsys.readouterr().out
    commands = [shlex.split(line)[1:] for line in out.splitlines() if line.startswith("  sasv ")]
    trainings = [words for words in commands if words[0] == "train"]
    assert len(trainings) == 2 * 19  # two encoders; stages shared by rows are trained once
    for words in commands:
        cli.parse(words[0], words[1:])
    assert "in all about" in out
    third = cli.parse("train", next(words for words in trainings if "stage1_stage3-train" in " ".join(words))[1:])
    assert (third.loss, third.epochs, third.frames, Path(third.init).parent.name) == ("sasv", 100, 500, "stage1")
    first = cli.parse("train", trainings[0][1:])
    assert first.dev_trials.endswith("vox1/trials_o.tsv") or first.loss == "sasv"
    hours = {name: table_rows.train_hours(table_rows.GFLOP[name], 100, 1.1e6, 200, 100) for name in table_rows.GFLOP}
    assert 4 < hours["ecapa-tdnn"] < 6 and hours["ska-tdnn"] > hours["mfa-conformer"]


def test_many_processes_are_started_by_the_launcher(corpora, capsys, monkeypatch):
    folders = {"voxceleb2": str(corpora / "vox2"), "asvspoof2019": str(corpora / "la" / "LA")}
    reproduce(ReproduceOptions(row=7, dry_run=True, launch="torchrun --nproc-per-node 4", **folders))
    lines = [line for line in capsys.readouterr().out.splitlines() if " -m sasv " in line]
    assert len(lines) == 4 and all(line.startswith("  torchrun --nproc-per-node 4 -m sasv ") for line in lines)
    started = []
    monkeypatch.setattr(
        stages.subprocess, "run", lambda command: started.append(command) or type("R", (), {"returncode": 1})
    )
    with pytest.raises(SasvError, match="the same command goes on"):
        stages.launch(["torchrun", "-m", "sasv", "train"])
    assert started[0][1:3] == ["-m", "torch.distributed.run"]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"row": 0}, "say which rows"),
        ({"rows": "1"}, "say which rows"),
        ({"scale": "full"}, "give the corpora: --voxceleb2 and --asvspoof2019; or --scale tiny"),
        ({"scale": "full", "corpus": "x"}, "--corpus is for --scale tiny"),
        ({"train_set": "eval"}, "'eval' is no training set"),
        ({"encoder": "wav2vec"}, "'wav2vec' is no encoder; use one of"),
        ({"unseen": "griffin-lim"}, "then it is not unseen"),
        ({"launch": "python"}, "--launch 'python'"),
        ({"voxceleb2": "v"}, "give the corpora: --asvspoof2019"),
    ],
)
def test_mistakes_are_one_line(changes, message, tmp_path):
    with pytest.raises(SasvError, match=message):
        reproduce(tiny(tmp_path, **changes))
