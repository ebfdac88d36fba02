"""The trainer: same weights twice, resumed = uninterrupted, selection, stages from checkpoints."""

import csv
import json
import shutil
import subprocess
import sys
import time

import pytest
import torch

from conftest import SMALL, tiny_options
from sasv.checkpoints import load_checkpoint
from sasv.commands import train
from sasv.core.errors import CheckpointError, SasvError
from sasv.encoders import ENCODERS
from sasv.losses import LOSSES
from sasv.tables import load_utterances
from sasv.training.modules import class_list
from sasv.training.trainer import Trainer


def same(left, right):
    one, two = load_checkpoint(left), load_checkpoint(right)
    return all(torch.equal(one.encoder[key], two.encoder[key]) for key in one.encoder) and all(
        torch.equal(one.head[key], two.head[key]) for key in one.head
    )


def log(run):
    """Rows of a run's metrics.csv."""
    return list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))


def test_the_same_command_gives_the_same_weights(corpus, trained, tmp_path):
    again = train(tiny_options(corpus, tmp_path, workers=1))
    assert same(again, trained / "model.safetensors")
    other = train(tiny_options(corpus, tmp_path / "other", seed=1))
    assert not same(other, trained / "model.safetensors")


def test_a_resumed_run_equals_an_uninterrupted_one(corpus, trained, tmp_path, monkeypatch, capsys):
    original = Trainer._train_epoch

    def cut(self):
        if self.epoch == 2:
            raise KeyboardInterrupt
        return original(self)

    monkeypatch.setattr(Trainer, "_train_epoch", cut)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_options(corpus, tmp_path))
    monkeypatch.undo()
    resumed = train(tiny_options(corpus, tmp_path))
    assert "going on after epoch 2" in capsys.readouterr().err
    assert same(resumed, trained / "model.safetensors")
    rows = log(tmp_path)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]


def start(options, tmp_path):
    """Run ``sasv train`` as a user does, in a process of its own."""
    given = {key: value for key, value in vars(options).items() if value != ""}
    (tmp_path / "options.yaml").write_text(json.dumps(given))  # JSON is YAML
    words = [sys.executable, "-m", "sasv.cli", "train", str(tmp_path / "options.yaml")]
    return subprocess.Popen(words, stderr=subprocess.PIPE, text=True)


def batches_done(run):
    """Epoch and batch of the saved state, or None."""
    try:
        state = torch.load(run / "state.pt", weights_only=True)
    except FileNotFoundError:
        return None
    return state["epoch"], state["batch"]


def test_killed_again_and_again_it_ends_with_the_same_weights(corpus, tmp_path):
    """SIGKILL wherever it is, several times; the same command goes on, in the middle of an epoch too."""
    plain = train(tiny_options(corpus, tmp_path / "plain", epochs=2, cycle=2, batches=20, frames=150))
    options = tiny_options(
        corpus, tmp_path / "killed", epochs=2, cycle=2, batches=20, frames=150, save_minutes=0.0, device="cpu"
    )
    seen = set()
    for attempt in range(4):
        process = start(options, tmp_path)
        before = batches_done(tmp_path / "killed")
        while process.poll() is None and batches_done(tmp_path / "killed") == before:
            time.sleep(0.005)
        time.sleep(0.03 * attempt)
        process.kill()
        process.communicate()
        seen.add(batches_done(tmp_path / "killed"))
    assert len(seen) >= 3 and any(batch for _, batch in seen), seen
    process = start(options, tmp_path)
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert "going on after epoch" in said
    assert same(tmp_path / "killed" / "model.safetensors", plain)


def test_sigterm_saves_and_stops(corpus, tmp_path):
    options = tiny_options(corpus, tmp_path / "run", batches=2000, save_minutes=60.0)
    process = start(options, tmp_path)
    while not (tmp_path / "run" / "options.json").exists():
        time.sleep(0.01)
    time.sleep(1.0)
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "stopped by SIGTERM, saved; the same command goes on" in said
    assert batches_done(tmp_path / "run") > (0, 0)


def test_other_options_in_the_same_folder_are_refused(corpus, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    with pytest.raises(SasvError, match="holds a run with other options .seed was 0, now 5"):
        train(tiny_options(corpus, tmp_path / "run", seed=5))
    (tmp_path / "run" / "state.pt").write_bytes(b"junk")
    with pytest.raises(CheckpointError, match="broken training state"):
        train(tiny_options(corpus, tmp_path / "run"))


def test_the_best_development_epoch_is_kept_with_its_threshold(trained):
    rows = log(trained)
    spec = load_checkpoint(trained / "model.safetensors").specification
    best = min(float(row["sasv_eer"]) for row in rows)
    assert spec.training["dev_sasv_eer"] == pytest.approx(best)
    assert float(rows[spec.training["epoch"] - 1]["sasv_eer"]) == best
    assert spec.threshold is not None
    assert "SASV-EER point of the development trials" in spec.threshold_source
    assert (spec.spoof_index, spec.licence, len(spec.classes)) == (None, "CC0-1.0", 6)
    assert json.loads((trained / "options.json").read_text())["seed"] == 0


def test_the_loss_falls(trained):
    losses = [float(row["loss"]) for row in log(trained)]
    assert losses[-1] < losses[0]


def test_stage3_from_a_stage1_checkpoint(corpus, trained, tmp_path, capsys):
    """The same trainer with spoofed pairs: the spoof class is the last and comes from the table."""
    model = train(
        tiny_options(
            corpus,
            tmp_path,
            where="",
            loss="sasv",
            spoofs=2,
            epochs=1,
            init=str(trained / "model.safetensors"),
            sizes={},
        )
    )
    said = capsys.readouterr().err
    assert "kept all" in said
    assert "dropped head aamsoftmax.weight (6, 24): this training wants (9, 24)" in said
    spec = load_checkpoint(model).specification
    assert spec.classes == [f"s{i}" for i in range(8)] + ["spoof"]
    assert (spec.spoof_index, spec.loss) == (8, "sasv")


def test_starting_from_another_encoder_is_refused(corpus, trained, tmp_path):
    with pytest.raises(SasvError, match="a ecapa-tdnn, not the wanted ska-tdnn"):
        train(tiny_options(corpus, tmp_path, encoder="ska-tdnn", sizes={}, init=str(trained / "model.safetensors")))


@pytest.mark.parametrize("name", ["ska-tdnn", "mfa-conformer"])
def test_the_other_encoders_train(corpus, tmp_path, name):
    model = train(tiny_options(corpus, tmp_path, encoder=name, sizes=SMALL[name], epochs=1, batches=1))
    assert load_checkpoint(model).specification.encoder == name


def test_bfloat16_trains(corpus, tmp_path):
    model = train(tiny_options(corpus, tmp_path, precision="bfloat16", epochs=1, batches=1))
    assert all(torch.isfinite(value).all() for value in load_checkpoint(model).encoder.values())


def test_without_development_trials_the_last_epoch_is_the_model(corpus, tmp_path):
    model = train(tiny_options(corpus, tmp_path, epochs=1, dev_trials="", dev_enrolments=""))
    assert load_checkpoint(model).specification.threshold is None
    with pytest.raises(SasvError, match="give both or neither"):
        train(tiny_options(corpus, tmp_path / "x", dev_trials=""))


def test_options_that_do_not_fit_the_table(corpus, tmp_path):
    with pytest.raises(SasvError, match="wants 50 different speakers, the training table has 6"):
        train(tiny_options(corpus, tmp_path, speakers=50))
    with pytest.raises(SasvError, match="no row has label spoof"):
        train(tiny_options(corpus, tmp_path, spoofs=2, loss="sasv"))
    with pytest.raises(SasvError, match="unknown loss 'aam'"):
        train(tiny_options(corpus, tmp_path, loss="aam"))


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(corpus, tmp_path, monkeypatch):
    original = Trainer._step

    def poison(self, waves, labels):
        if self.epoch == 1:
            waves = waves * float("nan")
        return original(self, waves, labels)

    monkeypatch.setattr(Trainer, "_step", poison)
    with pytest.raises(SasvError, match="the loss became nan in epoch 2; the last checkpoint is kept"):
        train(tiny_options(corpus, tmp_path))
    assert (tmp_path / "state.pt").exists()


def test_classes_come_from_the_table(corpus):
    table = load_utterances(corpus / "utterances.tsv")
    classes, labels = class_list(table)
    assert classes == [f"s{i}" for i in range(8)] + ["spoof"]
    names = table.table.texts("speaker")
    assert all(classes[label] == name for label, name in zip(labels, names))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_aam_gradient_is_finite_where_the_cosine_is_one(dtype, sign):
    head = LOSSES.get("aamsoftmax")(8, 3)
    embeddings = (sign * head.weight.detach()[[0, 0, 1, 1]].view(2, 2, 8)).to(dtype).requires_grad_()
    head(embeddings, torch.tensor([0, 1])).value.backward()
    assert torch.isfinite(embeddings.grad).all()
    assert torch.isfinite(head.weight.grad).all()


def test_prototypical_is_the_squared_distance():
    head = LOSSES.get("prototypical")(2, 0)
    embeddings = torch.tensor([[[0.0, 0.0], [1.0, 0.0]], [[0.0, 2.0], [0.0, 1.0]]])
    # distances: 1 and 1; 5 and 1 -> cross-entropies log 2 and log(1 + e^-4)
    expected = (torch.log(torch.tensor(2.0)) + torch.log(1 + torch.exp(torch.tensor(-4.0)))) / 2
    assert head(embeddings, torch.tensor([0, 1])).value.item() == pytest.approx(expected.item(), rel=1e-6)


def test_spoofs_are_only_negatives_in_the_sasv_loss():
    head = LOSSES.get("sasv")(8, 5)
    torch.manual_seed(0)
    embeddings = torch.randn(4, 2, 8, requires_grad=True)
    spoofed = torch.tensor([False, False, True, True])
    head.angleproto_sasv(embeddings, spoofed).backward()
    assert not embeddings.grad[2:, 0].any()  # utterance 0 of a spoofed pair is never a row
    assert embeddings.grad[2:, 1].any()


def test_every_registered_encoder_and_loss_can_be_made():
    for name in ENCODERS:
        ENCODERS.get(name)
    for name in LOSSES:
        assert LOSSES.get(name)(16, 4)
