"""Training on several processes: two gloo processes give the same gradients as one on the same
global batch.
"""

import csv
import signal
import time

import pytest
import torch

from conftest import tiny_options
from forked import Forked, written
from sasv.checkpoints import load_checkpoint
from sasv.commands import train
from sasv.embeddings.model import Model
from sasv.parallel.processes import Processes
from sasv.training.build import build_trainer

pytestmark = pytest.mark.slow

STEP = {  # one step of plain gradient descent, so that the change of the weights is the gradient
    "epochs": 1,
    "batches_per_epoch": 1,
    "optimiser": "sgd",
    "max_lr": 1.0,
    "schedule": "step",
    "weight_decay": 0.0,
    "augment": False,
    "dev_trials": "",
    "dev_enrolments": "",
}
NESTEROV = 1.9  # the first step of momentum 0.9


@pytest.fixture
def smooth(monkeypatch):
    """Rectifiers without a kink, in this process."""
    for owner, name in RECTIFIERS:
        monkeypatch.setattr(owner, name, getattr(owner, name))  # restored at the end
    make_smooth()


RECTIFIERS = (
    (torch.nn.functional, "relu"),
    (torch, "relu"),
    (torch.Tensor, "relu"),
    (torch.nn.ReLU, "forward"),
)


def make_smooth():
    """Replace the rectifiers by softplus. ReLU has two slopes at zero, so gradients differ if
    rounding decides between them (AVX2, seed 0). Softplus is smooth.
    """
    softplus = torch.nn.functional.softplus

    def smooth(values, inplace=False):
        return softplus(values, beta=10)

    torch.nn.functional.relu = smooth
    torch.relu = smooth
    torch.Tensor.relu = smooth
    torch.nn.ReLU.forward = lambda self, values: softplus(values, beta=10)


def train_on_two(options, tmp_path, before=None):
    """Start ``sasv train`` on two processes."""
    return Forked(["train", written(options, tmp_path)], tmp_path / "said", 2, before)


def gradients(options, model):
    """Return the gradient of every parameter, from the weights before and after one step."""
    before = build_trainer(options).engine.system
    after = load_checkpoint(model)
    pairs = [
        (dict(before.encoder.named_parameters()), after.encoder),
        (dict(before.head.named_parameters()), after.head),
    ]
    return {
        key: (old.detach() - new[key]) / NESTEROV for own, new in pairs for key, old in own.items()
    }


def assert_close(one, two, tolerance):
    largest = max(value.abs().max() for value in one.values())
    assert largest > 1e-3
    for key in one:
        assert (one[key] - two[key]).abs().max() <= tolerance * largest, key


@pytest.mark.parametrize("loss", ["aamsoftmaxproto", "sasv", "anchored"])
def test_two_processes_give_the_gradients_of_one_on_the_same_global_batch(
    corpus, trained, tmp_path, loss, smooth
):
    """With gathered negatives and batch norm over both, 2 processes with 2 pairs each are
    equivalent to 1 process with 4.
    """
    spoofs = (
        {"loss": loss, "where": "", "spoof_pairs": 4, "spoof_head": "linear"}
        if loss != "aamsoftmaxproto"
        else {}
    )
    if loss == "anchored":
        init = str(trained / "model.safetensors")
        spoofs |= {"init": init, "encoder_options": {}, "freeze_batch_norm": True}
    one = tiny_options(corpus, tmp_path / "one", **STEP, **spoofs)
    half = {key: value // 2 for key, value in spoofs.items() if key == "spoof_pairs"}
    two = tiny_options(
        corpus,
        tmp_path / "two",
        **(STEP | spoofs | half | {"pairs": 2, "gather_batches": True, "sync_batch_norm": True}),
    )
    said = train_on_two(two, tmp_path, make_smooth).finish()
    assert "in each of 2 processes" in said
    single = gradients(one, train(one))
    assert_close(single, gradients(two, tmp_path / "two" / "model.safetensors"), 1e-5)
    losses = [
        next(csv.DictReader((tmp_path / run / "metrics.csv").open()))["loss"]
        for run in ("one", "two")
    ]
    assert float(losses[0]) == pytest.approx(float(losses[1]), rel=1e-5)
    statistics = [
        load_checkpoint(tmp_path / run / "model.safetensors").encoder["bn5.running_var"]
        for run in ("one", "two")
    ]
    torch.testing.assert_close(*statistics, rtol=1e-4, atol=1e-6)


def test_two_processes_without_gathering_give_the_mean_of_their_gradients(corpus, tmp_path):
    one = tiny_options(
        corpus, tmp_path / "one", **(STEP | {"batches_per_epoch": 2, "accumulate_batches": 2})
    )
    two = tiny_options(corpus, tmp_path / "two", **(STEP | {"batches_per_epoch": 2}))
    train_on_two(two, tmp_path).finish()
    assert_close(
        gradients(one, train(one)), gradients(two, tmp_path / "two" / "model.safetensors"), 1e-5
    )


@pytest.mark.long
def test_interrupted_run_on_two_processes_resumes_to_the_same_weights(corpus, tmp_path):
    """After SIGTERM, both save at the same batch; the averages and the selection continue as
    well.
    """
    changes = {
        "epochs": 2,
        "cycle_epochs": 2,
        "batches_per_epoch": 40,
        "crop_frames": 80,
        "weight_average": "ema",
        "batch_norm_batches": 2,
    }
    whole = tiny_options(corpus, tmp_path / "whole", **changes)
    train_on_two(whole, tmp_path).finish()
    stopped = tiny_options(corpus, tmp_path / "stopped", **changes, save_minutes=0.0)
    run = train_on_two(stopped, tmp_path)
    while not (tmp_path / "stopped" / "state.pt").exists():
        assert run.running, run.said
        time.sleep(0.01)
    run.send(signal.SIGTERM)
    assert 0 not in run.end(), run.said
    assert torch.load(tmp_path / "stopped" / "state.pt", weights_only=True)["epoch"] < 2
    assert "going on after epoch" in train_on_two(stopped, tmp_path).finish()
    one, two = (
        load_checkpoint(tmp_path / run / "model.safetensors") for run in ("whole", "stopped")
    )
    assert one.specification.training["average"] == "ema"
    assert all(torch.equal(one.encoder[key], two.encoder[key]) for key in one.encoder)


def test_the_parts_of_the_development_trials_are_embedded_by_the_model_that_is_saved(
    corpus, tmp_path
):
    """Each process has its own batch-norm statistics, but the saved ones are used."""
    options = tiny_options(corpus, tmp_path / "run", epochs=1, batches_per_epoch=6)
    train_on_two(options, tmp_path).finish()
    saved = load_checkpoint(tmp_path / "run" / "model.safetensors")
    found = build_trainer(options).development.evaluate(Model(saved), Processes())
    assert found["sasv_threshold"] == pytest.approx(saved.specification.threshold, abs=1e-5)


def test_a_process_whose_files_cannot_be_read_does_not_stop_the_others(corpus, tmp_path):
    from conftest import make_corpus

    own = make_corpus(tmp_path / "corpus")
    for number in range(6):
        for speaker in range(4):
            (own / "audio" / f"s{speaker}-{number}.wav").write_bytes(b"broken")
    options = tiny_options(
        own, tmp_path / "run", pairs=2, batches_per_epoch=4, epochs=1, gather_batches=True
    )
    said = train_on_two(options, tmp_path).finish()
    assert "left out:" in said
    weights = load_checkpoint(tmp_path / "run" / "model.safetensors").encoder.values()
    assert all(torch.isfinite(value).all() for value in weights)


def test_evaluation_with_s_norm_is_the_same_on_two_processes(trained, corpus, tmp_path):
    """The scores are bit-identical if each process uses one thread, as under torchrun, because more
    threads add in another order.
    """
    words = ["evaluate", "--utterances", corpus / "utterances.tsv"]
    words += ["--model", trained / "model.safetensors", "--cohort", corpus / "utterances.tsv"]
    words += ["--enrolments", corpus / "enrolments_dev.tsv", "--trials", corpus / "trials_dev.tsv"]
    words += ["--cohort-where", "split=train", "--top", 5, "--intervals", 0, "--no-plot"]
    words += ["--batch-seconds", 3]
    scores = []
    for count in (1, 2):
        out = tmp_path / str(count)
        run = Forked([*words, "--out", out], tmp_path / f"said-{count}", count)
        run.finish()
        assert run.output.count("SASV-EER") == 1
        scores.append((out / "scores.tsv").read_bytes())
    assert scores[0] == scores[1]
