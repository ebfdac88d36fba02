"""The rows of the published table are planned, run at tiny scale, resumed, and redone on
request.
"""

import importlib
import json
import shlex
from pathlib import Path

import pytest

from sasv import cli
from sasv.checkpoints import load_checkpoint
from sasv.commands import ReproduceOptions, reproduce
from sasv.commands import _calls as calls
from sasv.core.errors import SasvError
from sasv.encoders import ENCODERS
from sasv.encoders.cost import gflop
from sasv.encoders.wav2vec2 import TINY
from sasv.reproduction.costs import train_hours
from sasv.reproduction.rows import ROWS, TABLE_ENCODERS, Stage, model_name, rows_of
from sasv.tables import load_scores, load_utterances
from sasv.weights import find


def test_the_rows_are_those_of_the_publication():
    assert [row.number for row in rows_of(["all"])] == list(range(1, 12))
    assert ROWS[7].words() == ("Vox2 bna", "Vox2 bna+cs", "LA bna+spf")
    stages = ROWS[7].stages("train")
    assert stages == (Stage(1, "vox2"), Stage(2, "vox2"), Stage(3, "la", "train"))
    names = [model_name(stages[:count]) for count in (1, 2, 3)]
    assert names == ["stage1", "stage1_stage2-vox2", "stage1_stage2-vox2_stage3-train"]
    assert model_name(ROWS[9].stages("train+dev")) == "stage2-la-train+dev_stage3-train+dev"
    assert model_name(ROWS[2].stages("train")) == "stage1"
    assert not ROWS[6].needs_train_set() and ROWS[10].needs_train_set()
    assert find(11, "ska-tdnn", "train").published == 2.48
    for number in (0, 12, "x"):
        with pytest.raises(SasvError, match="not a row of the published table"):
            rows_of([number])


def tiny(out, **changes):
    values = {"row": 7, "scale": "tiny", "voices": 10, "encoder": ["ecapa-tdnn"]}
    values |= {"epochs": 1, "batches_per_epoch": 2, "pairs": 2}
    return ReproduceOptions(out=str(out), **(values | changes))


@pytest.mark.slow
def test_a_row_runs_resumes_and_is_redone(tmp_path, small_runs, monkeypatch, capsys):
    options = tiny(tmp_path / "r")
    real = importlib.import_module("sasv.commands._train").train
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
    assert (
        "train ecapa-tdnn, stage1: done already" in err
        and "stage1_stage2-vox2: interrupted, going on" in err
    )
    assert len(calls) == 4  # stage 1 once, stage 2 twice, stage 3 once
    assert result.metrics["sasv_eer"] is not None and result.published is None
    scores = load_scores(
        tmp_path / "r/evaluation/ecapa-tdnn/stage1_stage2-vox2_stage3-train+dev/scores.tsv"
    )
    assert set(scores.attacks[1]) == {"-", "source-filter"}  # an attack that no stage has heard
    parts = {
        name: load_utterances(tmp_path / f"r/tables/{name}/utterances.tsv")
        for name in ("vox2", "la")
    }
    assert not set(parts["vox2"].speakers[1]) & set(parts["la"].speakers[1])
    trained = parts["la"].where("split=train")
    assert set(trained.attacks[1]) == {"-", "world"}
    assert not set(trained.speakers[1]) & set(parts["la"].where("split=eval").speakers[1])
    reproduce(options)
    assert len(calls) == 4
    capsys.readouterr()
    with pytest.raises(SasvError, match="batches_per_epoch was 2, now 1.*--redo"):
        reproduce(tiny(tmp_path / "r", batches_per_epoch=1))
    assert len(calls) == 4
    models = tmp_path / "r/models/ecapa-tdnn"
    before = (models / "stage1/model.safetensors").read_bytes()
    reproduce(tiny(tmp_path / "r", batches_per_epoch=1, redo=True))
    err = capsys.readouterr().err
    assert (
        "batches_per_epoch was 2, now 1; again from its beginning, what was there is kept in" in err
    )
    assert len(calls) == 7
    assert (models / "stage1.old-1/model.safetensors").read_bytes() == before
    table = (tmp_path / "r/table/report.md").read_text()
    assert "Tiny scale on synthetic voices" in table and "Vox2 bna+cs" in table
    assert json.loads((tmp_path / "r/table.json").read_text())[0]["row"] == 7


@pytest.mark.slow
def test_any_encoder_can_be_planned_and_given_options(tmp_path, small_runs):
    own = [name for name in ENCODERS if name not in ("wav2vec2", "w2v-bert", "whisper")]
    text = reproduce(tiny(tmp_path, encoder=own, dry_run=True)).text
    assert all(text.count(f"] train {name}, ") == 3 for name in own)
    values = {"row": 2, "encoder": ["resnet"], "encoder_options": {"embedding": 32}}
    text = reproduce(tiny(tmp_path, dry_run=True, **values)).text
    assert "--encoder resnet" in text and "--encoder-options.embedding=32" in text
    with pytest.raises(
        SasvError, match="options can only be used with a single encoder, not with resnet, ska"
    ):
        reproduce(tiny(tmp_path, **(values | {"encoder": ["resnet", "ska-tdnn"]})))


@pytest.mark.slow
def test_a_row_is_planned_with_a_pretrained_backbone(tmp_path):
    """With the configuration of the scale, the weights of the backbone would not be loaded."""
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    config = {name: value for name, value in TINY.items() if name != "model_type"}
    folder = tmp_path / "wavlm"
    transformers.WavLMModel(transformers.WavLMConfig(**config)).save_pretrained(folder)
    values = {"encoder": ["wav2vec2"], "encoder_options": {"backbone": str(folder)}}
    text = reproduce(tiny(tmp_path, dry_run=True, row=7, **values)).text
    assert text.count(f"--encoder-options.backbone={folder}") == 3 and ".config=" not in text
    assert gflop("wav2vec2", values["encoder_options"]) == gflop("wav2vec2", {"config": TINY})


@pytest.mark.slow
@pytest.mark.parametrize(("encoder", "row"), [("campplus", 7), ("resnet", 2)])
def test_a_row_runs_with_encoders_of_other_toolkits(tmp_path, small_runs, encoder, row):
    (result,) = reproduce(tiny(tmp_path, encoder=[encoder], row=row, batches_per_epoch=1))
    assert result.metrics["sasv_eer"] is not None
    assert load_checkpoint(result.model).specification.encoder == encoder


@pytest.mark.long
@pytest.mark.slow
def test_the_whole_table_of_parts_of_the_corpora(corpora, tmp_path, small_runs):
    found = reproduce(
        tiny(
            tmp_path,
            row=None,
            rows=["all"],
            encoder=["ecapa-tdnn"],
            voxceleb2=str(corpora / "vox2"),
            asvspoof2019=str(corpora / "la" / "LA"),
            vocoders=["griffin-lim"],
            batches_per_epoch=1,
        )
    )
    # rows 2, 4 and 6 do not train on ASVspoof2019: one model for both training sets
    assert len(found) == 11 * 2 - 3 and {result.train_set for result in found} == {
        "train",
        "train+dev",
    }
    assert all(result.metrics["sasv_eer"] is not None for result in found)
    out = found.text
    assert "ecapa-tdnn train+dev" in out and "parts of the corpora" in out


@pytest.mark.slow
def test_published_figures_stand_beside_ours(tmp_path, small_runs):
    (result,) = reproduce(tiny(tmp_path, row=2, encoder=["mfa-conformer"], train_set=["train"]))
    assert result.published == 20.22
    text = (tmp_path / "table/report.md").read_text()
    assert "| 20.22 |" in text and "mfa-conformer train" in text


@pytest.mark.slow
def test_the_full_plan_is_made_of_commands_that_parse(corpora):
    folders = {"voxceleb2": str(corpora / "vox2"), "asvspoof2019": str(corpora / "la" / "LA")}
    options = ReproduceOptions(
        rows=["all"], dry_run=True, voxceleb1="v1", noises="musan", rirs="rirs", **folders
    )
    planned = reproduce(options)
    assert planned == []
    out = planned.text
    commands = [shlex.split(line)[1:] for line in out.splitlines() if line.startswith("  sasv ")]
    trainings = [words for words in commands if words[0] == "train"]
    assert len(trainings) == 2 * 19  # two encoders; stages shared by rows are trained once
    kinds = {}
    for words in commands:  # one of each recipe with the same options: parsing takes a while
        named = [word for word in words if word.startswith("--")]
        kinds[*words[:2], *named] = words
    for words in kinds.values():
        cli.parse(words[0], words[1:])
    assert "in all about" in out
    third = cli.parse(
        "train", next(words for words in trainings if "stage1_stage3-train" in " ".join(words))[1:]
    )
    assert (third.loss, third.epochs, third.crop_frames, Path(third.init).parent.name) == (
        "sasv",
        100,
        500,
        "stage1",
    )
    first = cli.parse("train", trainings[0][1:])
    assert first.dev_trials.endswith("vox1/trials_o.tsv") or first.loss == "sasv"
    hours = {
        name: train_hours(gflop(name), 100, 1.1e6, 200, 100)
        for name in ("ecapa-tdnn", *TABLE_ENCODERS)
    }
    assert 4 < hours["ecapa-tdnn"] < 6 and hours["ska-tdnn"] > hours["mfa-conformer"]


@pytest.mark.slow
def test_many_processes_are_started_by_the_launcher(corpora, monkeypatch):
    folders = {"voxceleb2": str(corpora / "vox2"), "asvspoof2019": str(corpora / "la" / "LA")}
    planned = reproduce(
        ReproduceOptions(row=7, dry_run=True, launch="torchrun --nproc-per-node 4", **folders)
    )
    lines = [line for line in planned.text.splitlines() if " -m sasv " in line]
    assert len(lines) == 4 and all(
        line.startswith("  torchrun --nproc-per-node 4 -m sasv ") for line in lines
    )
    started = []
    monkeypatch.setattr(
        calls.subprocess,
        "run",
        lambda command: started.append(command) or type("R", (), {"returncode": 1}),
    )
    with pytest.raises(SasvError, match="run the same command again"):
        calls.launch(["torchrun", "-m", "sasv", "train"])
    assert started[0][1:3] == ["-m", "torch.distributed.run"]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"row": None}, "no rows are given"),
        ({"rows": [1]}, "no rows are given"),
        (
            {"scale": "full"},
            "give the corpora with --voxceleb2 and --asvspoof2019, or use --scale tiny",
        ),
        ({"scale": "full", "corpus": "x"}, "--corpus can only be used with --scale tiny"),
        ({"train_set": ["eval"]}, "--train-set is 'eval'; it must be one of train, train\\+dev"),
        ({"encoder": ["wav2vec"]}, "'wav2vec' is not an encoder; use one of"),
        ({"unseen": "griffin-lim"}, "so it would not be unseen"),
        ({"launch": "python"}, "--launch 'python'"),
        ({"voxceleb2": "v"}, "give the corpora with --asvspoof2019"),
    ],
)
def test_mistakes_are_reported_in_one_line(changes, message, tmp_path):
    with pytest.raises(SasvError, match=message):
        reproduce(tiny(tmp_path, **changes))
