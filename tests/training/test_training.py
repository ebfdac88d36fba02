"""The trainer: reproducible weights, resumed = uninterrupted, selection, and stages from
checkpoints.
"""

import csv
import json
import signal
import sys
import time

import pytest
import torch

from conftest import SMALL, shared, tiny_options, train_until
from forked import Forked, written
from sasv import cli
from sasv.checkpoints import load_checkpoint
from sasv.commands import PrepareOptions, prepare, train
from sasv.core.errors import SasvError
from sasv.encoders import ENCODERS
from sasv.losses import LOSSES, make_loss
from sasv.tables import load_utterances
from sasv.training.build import build_trainer
from sasv.training.engine import Engine
from sasv.training.modules import class_list
from sasv.training.optimisers import OPTIMISERS
from sasv.training.schedules import SCHEDULES


def same(left, right):
    one, two = load_checkpoint(left), load_checkpoint(right)
    return all(torch.equal(one.encoder[key], two.encoder[key]) for key in one.encoder) and all(
        torch.equal(one.head[key], two.head[key]) for key in one.head
    )


def log(run):
    """Return the rows of a run's metrics.csv."""
    return list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))


@pytest.mark.slow
def test_the_same_command_gives_the_same_weights(corpus, trained, tmp_path):
    again = train(tiny_options(corpus, tmp_path, num_workers=1))
    assert same(again, trained / "model.safetensors")
    other = train(tiny_options(corpus, tmp_path / "other", seed=1))
    assert not same(other, trained / "model.safetensors")


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one(corpus, trained, tmp_path, monkeypatch, capsys):
    train_until(monkeypatch, tiny_options(corpus, tmp_path), 2)
    resumed = train(tiny_options(corpus, tmp_path))
    assert "going on after epoch 2" in capsys.readouterr().err
    assert same(resumed, trained / "model.safetensors")
    rows = log(tmp_path)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]


def start(options, tmp_path):
    """Run ``sasv train`` in a separate process."""
    return Forked(["train", written(options, tmp_path)], tmp_path / "said")


def batches_done(run):
    """Return the epoch and the batch of the saved state, or None."""
    try:
        state = torch.load(run / "state.pt", weights_only=True)
    except FileNotFoundError:
        return None
    return state["epoch"], state["batch"]


@pytest.mark.slow
def test_repeatedly_killed_run_ends_with_the_same_weights(corpus, tmp_path):
    """The process is killed several times at any point. The same command resumes, even in the
    middle of an epoch.
    """
    plain = train(
        tiny_options(
            corpus,
            tmp_path / "plain",
            epochs=2,
            cycle_epochs=2,
            batches_per_epoch=20,
            crop_frames=80,
        )
    )
    options = tiny_options(
        corpus,
        tmp_path / "killed",
        epochs=2,
        cycle_epochs=2,
        batches_per_epoch=20,
        crop_frames=80,
        save_minutes=0.0,
        device="cpu",
    )
    seen = set()
    for attempt in range(3):
        process = start(options, tmp_path)
        before = batches_done(tmp_path / "killed")
        while process.running and batches_done(tmp_path / "killed") == before:
            time.sleep(0.005)
        time.sleep(0.03 * attempt)
        process.send(signal.SIGKILL)
        process.end()
        seen.add(batches_done(tmp_path / "killed"))
    assert len(seen) >= 3 and any(batch for _, batch in seen), seen
    assert "going on after epoch" in start(options, tmp_path).finish()
    assert same(tmp_path / "killed" / "model.safetensors", plain)


@pytest.mark.slow
def test_sigterm_saves_and_stops(corpus, tmp_path):
    options = tiny_options(corpus, tmp_path / "run", batches_per_epoch=2000, save_minutes=60.0)
    process = start(options, tmp_path)
    while not (tmp_path / "run" / "options.json").exists():
        time.sleep(0.01)
    time.sleep(1.0)
    process.send(signal.SIGTERM)
    assert process.end(60) == [2]
    assert "stopped by SIGTERM and saved; run the same command again to resume" in process.said
    assert batches_done(tmp_path / "run") > (0, 0)


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


@pytest.mark.slow
def test_stage3_from_a_stage1_checkpoint(corpus, trained, tmp_path, capsys):
    """The same trainer with spoofed pairs; the spoof class is the last one and comes from the
    table.
    """
    model = train(
        tiny_options(
            corpus,
            tmp_path,
            where="",
            loss="sasv",
            spoof_pairs=2,
            epochs=1,
            init=str(trained / "model.safetensors"),
            encoder_options={},
        )
    )
    said = capsys.readouterr().err
    assert "kept all" in said
    assert "dropped head aamsoftmax.weight (6, 24): this training needs (9, 24)" in said
    spec = load_checkpoint(model).specification
    assert spec.classes == [f"s{i}" for i in range(8)] + ["spoof"]
    assert (spec.spoof_index, spec.loss) == (8, "sasv")


@pytest.mark.slow
@pytest.mark.speech
def test_stage3_runs_on_real_asvspoof2019_files(tmp_path):
    """The stage works on real spoofed speech, at a scale that says nothing about quality."""
    tables = prepare(
        PrepareOptions(
            "asvspoof2019", str(shared("speech", "ASVspoof2019")), str(tmp_path / "tables")
        )
    )
    words = f"stage3-asvspoof2019-train --utterances {tables.utterances} --where split=train"
    words += f" --out {tmp_path / 'run'} --epochs 1 --crop-frames 60 --num-workers 0"
    words += " --pairs 18 --spoof-pairs 18"  # two of the twenty have no bona fide file here
    sizes = [f"--encoder-options.{name}={value}" for name, value in SMALL["ecapa-tdnn"].items()]
    model = train(cli.parse("train", [*words.split(), *sizes]))
    spec = load_checkpoint(model).specification
    assert (len(spec.classes), spec.classes[-1], spec.spoof_index) == (19, "spoof", 18)
    assert float(log(tmp_path / "run")[0]["loss"]) > 0


def test_starting_from_another_encoder_is_refused(corpus, trained, tmp_path):
    with pytest.raises(SasvError, match="its encoder is ecapa-tdnn, not ska-tdnn"):
        train(
            tiny_options(
                corpus,
                tmp_path,
                encoder="ska-tdnn",
                encoder_options={},
                init=str(trained / "model.safetensors"),
            )
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ska-tdnn", "mfa-conformer"])
def test_the_other_encoders_train(corpus, tmp_path, name):
    model = train(
        tiny_options(
            corpus,
            tmp_path,
            encoder=name,
            encoder_options=SMALL[name],
            epochs=1,
            batches_per_epoch=1,
        )
    )
    assert load_checkpoint(model).specification.encoder == name


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_trains(corpus, tmp_path, precision):
    model = train(
        tiny_options(corpus, tmp_path, precision=precision, epochs=2, batches_per_epoch=8)
    )
    losses = [float(row["loss"]) for row in log(tmp_path)]
    assert losses[1] < losses[0]
    assert all(torch.isfinite(value).all() for value in load_checkpoint(model).encoder.values())


@pytest.mark.slow
def test_without_development_trials_the_last_epoch_is_the_model(corpus, tmp_path):
    model = train(tiny_options(corpus, tmp_path, epochs=1, dev_trials="", dev_enrolments=""))
    assert load_checkpoint(model).specification.threshold is None
    with pytest.raises(SasvError, match="give both or neither"):
        train(tiny_options(corpus, tmp_path / "x", dev_trials=""))


def test_options_that_do_not_fit_the_table(corpus, tmp_path):
    with pytest.raises(
        SasvError, match="needs 50 different speakers, but the training table has only 6"
    ):
        train(tiny_options(corpus, tmp_path, pairs=50))
    with pytest.raises(SasvError, match="no row has the label spoof"):
        train(tiny_options(corpus, tmp_path, spoof_pairs=2, loss="sasv"))
    with pytest.raises(SasvError, match="unknown loss 'aam'"):
        train(tiny_options(corpus, tmp_path, loss="aam"))


@pytest.mark.slow
def test_nonfinite_steps_are_skipped_counted_and_finally_end_the_run(
    corpus, tmp_path, monkeypatch, capsys
):
    original = Engine.backward
    poisoned = {4}
    calls = iter(range(100))

    def poison(self, waves, *rest):
        return original(self, waves * float("nan") if next(calls) in poisoned else waves, *rest)

    monkeypatch.setattr(Engine, "backward", poison)
    model = load_checkpoint(train(tiny_options(corpus, tmp_path / "one")))
    assert all(torch.isfinite(value).all() for value in model.encoder.values())
    assert [row["skipped"] for row in log(tmp_path / "one")] == ["0", "1", "0"]
    assert "epoch 2: 1 steps skipped" in capsys.readouterr().err
    poisoned |= set(range(4, 9))
    calls = iter(range(100))
    with pytest.raises(
        SasvError, match="5 steps in a row without a finite gradient, up to epoch 3; the last"
    ):
        train(tiny_options(corpus, tmp_path / "all"))
    assert batches_done(tmp_path / "all") == (2, 0)


def rates(name, **options):
    values = {
        "cycle_epochs": 4,
        "max_lr": 1.0,
        "min_lr": 0.1,
        "warmup_epochs": 0,
        "lr_decay": 0.5,
    } | options
    schedule = SCHEDULES[name](**values)
    return [schedule(epoch) for epoch in range(9)]


def test_schedules_hand_computed():
    assert rates("step") == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25]
    assert rates("step", warmup_epochs=2)[:4] == pytest.approx([0.1, 0.55, 1.0, 1.0])
    assert rates("exponential")[0::4] == [1.0, 0.5, 0.25]
    assert rates("exponential", lr_decay=0.01)[-1] == 0.1
    assert rates("cyclic") == pytest.approx([0.1, 0.55, 1.0, 0.55, 0.1, 0.3, 0.5, 0.3, 0.1])
    assert rates("cosine")[:5] == pytest.approx([1.0, 0.868198, 0.55, 0.231802, 0.5], rel=1e-5)


def test_schedules_refuse_options_without_effect():
    with pytest.raises(SasvError, match="cyclic has no warm-up, but --warmup-epochs is 2"):
        rates("cyclic", warmup_epochs=2)
    with pytest.raises(SasvError, match="takes all of a cycle of 4 epochs"):
        rates("cosine", warmup_epochs=4)
    with pytest.raises(SasvError, match="--min-lr 2 is above --max-lr 1"):
        rates("step", min_lr=2.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMISERS)
def test_optimisers_schedules_and_warmed_margins_train(corpus, tmp_path, name):
    options = tiny_options(
        corpus,
        tmp_path,
        optimiser=name,
        schedule="step",
        margin_warmup_epochs=2,
        max_grad_norm=1.0,
        accumulate_batches=2,
        epochs=2,
    )
    trainer = build_trainer(options)
    parameters = trainer.engine.parameters
    before = [parameter.detach().clone() for parameter in parameters]
    trainer.run()
    assert all(torch.isfinite(parameter).all() for parameter in parameters)
    changed = [not torch.equal(old, new) for old, new in zip(before, parameters)]
    assert sum(changed) > len(changed) / 2
    assert trainer.engine.system.head.aamsoftmax.margin == pytest.approx(0.2 * 2 / 3)


def test_missing_optimiser_package_is_reported(corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    with pytest.raises(SasvError, match=r"adamp needs pytorch-optimizer.*sasv\[optimisers\]"):
        build_trainer(tiny_options(corpus, tmp_path, optimiser="adamp"))


def test_accumulated_gradients_are_those_of_the_mean(corpus, tmp_path, monkeypatch):
    """Two batches at accumulate_batches=2 give the mean of their two gradients, in one step."""
    engine = build_trainer(tiny_options(corpus, tmp_path, accumulate_batches=2)).engine
    engine.system.eval()  # batch statistics would tie the batches together
    waves = torch.randn(2, 3, 2, 8000) * 0.1
    labels = torch.tensor([0, 1, 2])
    singles = []
    for part in waves:
        engine.backward(part, labels, 3)
        singles.append([p.grad.clone() for p in engine.parameters if p.grad is not None])
        engine.optimiser.zero_grad()
    for part in waves:
        engine.backward(part, labels, 3, group=2)
    together = [p.grad for p in engine.parameters if p.grad is not None]
    for one, two, both in zip(*singles, together):
        torch.testing.assert_close((one + two) / 2, both, rtol=1e-4, atol=1e-6)


def test_clipping_bounds_the_step(corpus, tmp_path):
    engine = build_trainer(
        tiny_options(corpus, tmp_path, max_grad_norm=0.5, optimiser="sgd")
    ).engine
    engine.backward(torch.randn(4, 2, 8000) * 0.1, torch.tensor([0, 1, 2, 3]), 4)
    engine.optimiser.zero_grad = lambda **_: None
    assert engine.step(0)
    norm = torch.stack([p.grad.norm() for p in engine.parameters if p.grad is not None]).norm()
    assert norm.item() == pytest.approx(0.5, rel=1e-4)


def test_triplet_hand_computed():
    head = make_loss("triplet", 2, 0, {"margin": 0.5, "scale": 30.0})
    embeddings = torch.tensor([[[1.0, 0.0], [2.0, 0.0]], [[0.0, 1.0], [0.0, 3.0]]])
    # own distance 0, the other 2: 0 - 2 + 0.5 < 0 for both
    assert head(embeddings, torch.tensor([0, 1])).value.item() == 0.0
    crossed = embeddings[[0, 1]].clone()
    crossed[0, 1], crossed[1, 1] = embeddings[1, 1], embeddings[0, 1]
    # own distance 2, the other 0: 2 - 0 + 0.5
    assert head(crossed, torch.tensor([0, 1])).value.item() == pytest.approx(2.5)


def test_a_loss_takes_its_own_options_and_no_others():
    assert make_loss("aamsoftmax", 8, 3, {"margin": 0.3, "scale": 20.0}).margin == 0.3
    assert (
        make_loss("aamsoftmaxproto", 8, 3, {"margin": 0.3, "scale": 20.0}).aamsoftmax.scale == 20.0
    )
    assert not hasattr(make_loss("prototypical", 8, 3, {"margin": 0.3, "scale": 20.0}), "margin")
    with pytest.raises(SasvError, match="the loss triplet has no option 'centres'; it has margin"):
        make_loss("triplet", 8, 3, own={"centres": 3})


def test_the_symmetric_loss_is_the_mean_of_both_ways():
    torch.manual_seed(0)
    one, both = LOSSES.get("sasv")(8, 5), LOSSES.get("sasv-symmetric")(8, 5)
    both.load_state_dict(one.state_dict())
    embeddings, labels = torch.randn(4, 2, 8), torch.tensor([0, 1, 4, 4])
    spoofed = labels == 4
    there, back = (one.angleproto_sasv(x, spoofed) for x in (embeddings, embeddings.flip(1)))
    expected = one.aamsoftmax(embeddings, labels).value + (there + back) / 2
    assert both(embeddings, labels).value.item() == pytest.approx(expected.item(), rel=1e-6)


def test_run_folder_records_how_it_was_made(trained):
    assert (trained / "curves.png").read_bytes().startswith(b"\x89PNG")
    said = json.loads((trained / "environment.json").read_text())
    assert said["packages"]["torch"] == torch.__version__
    assert said["cores"] >= 1
    assert said["commit"] is None or len(said["commit"].rstrip("+")) == 40


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
    embeddings = (
        (sign * head.weight.detach()[[0, 0, 1, 1]].view(2, 2, 8)).to(dtype).requires_grad_()
    )
    head(embeddings, torch.tensor([0, 1])).value.backward()
    assert torch.isfinite(embeddings.grad).all()
    assert torch.isfinite(head.weight.grad).all()


def test_prototypical_is_the_squared_distance():
    head = LOSSES.get("prototypical")(2, 0)
    embeddings = torch.tensor([[[0.0, 0.0], [1.0, 0.0]], [[0.0, 2.0], [0.0, 1.0]]])
    # distances: 1 and 1; 5 and 1 -> cross-entropies log 2 and log(1 + e^-4)
    expected = (torch.log(torch.tensor(2.0)) + torch.log(1 + torch.exp(torch.tensor(-4.0)))) / 2
    assert head(embeddings, torch.tensor([0, 1])).value.item() == pytest.approx(
        expected.item(), rel=1e-6
    )


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
