"""Training on several processes: two gloo processes give the gradients of one on the same global
batch.
"""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from conftest import tiny_options
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


SMOOTH = """
import torch
softplus = torch.nn.functional.softplus
smooth = lambda x, inplace=False: softplus(x, beta=10)
torch.nn.functional.relu = torch.relu = torch.Tensor.relu = smooth
torch.nn.ReLU.forward = lambda self, x: softplus(x, beta=10)
"""
"""ReLU has two slopes at zero: where rounding decides, gradients differ (AVX2, seed 0). Softplus
has no kink.
"""


@pytest.fixture
def smooth(monkeypatch, tmp_path):
    """Rectifiers without a kink, in this process and in those that it starts."""
    for owner, name in (
        (torch.nn.functional, "relu"),
        (torch, "relu"),
        (torch.Tensor, "relu"),
        (torch.nn.ReLU, "forward"),
    ):
        monkeypatch.setattr(owner, name, getattr(owner, name))  # put back at the end
    exec(SMOOTH, {})
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SMOOTH)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))


def torchrun(options, tmp_path, count=2):
    """Start ``sasv train`` on several processes, as a user does."""
    given = {key: value for key, value in vars(options).items() if value != ""}
    (tmp_path / "options.yaml").write_text(json.dumps(given))
    words = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={count}",
        "-m",
        "sasv",
    ]
    words += ["train", str(tmp_path / "options.yaml")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        words, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )


def finish(process):
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


def gradients(options, model):
    """The gradient of every parameter, from the weights before and after one step."""
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
    """Negatives gathered, batch norm over both: 2 processes with 2 pairs each are 1 process with
    4.
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
    said = finish(torchrun(two, tmp_path))
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
    finish(torchrun(two, tmp_path))
    assert_close(
        gradients(one, train(one)), gradients(two, tmp_path / "two" / "model.safetensors"), 1e-5
    )


def test_a_stopped_run_on_two_processes_goes_on_to_the_same_weights(corpus, tmp_path):
    """SIGTERM to torchrun: both save at the same batch; the averages and the selection go on
    too.
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
    finish(torchrun(whole, tmp_path))
    stopped = tiny_options(corpus, tmp_path / "stopped", **changes, save_minutes=0.0)
    process = torchrun(stopped, tmp_path)
    while not (tmp_path / "stopped" / "state.pt").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode != 0
    assert torch.load(tmp_path / "stopped" / "state.pt", weights_only=True)["epoch"] < 2
    assert "going on after epoch" in finish(torchrun(stopped, tmp_path))
    one, two = (
        load_checkpoint(tmp_path / run / "model.safetensors") for run in ("whole", "stopped")
    )
    assert one.specification.training["average"] == "ema"
    assert all(torch.equal(one.encoder[key], two.encoder[key]) for key in one.encoder)


def test_the_parts_of_the_development_trials_are_embedded_by_the_model_that_is_saved(
    corpus, tmp_path
):
    """Each process has batch-norm statistics of its own; the saved ones count."""
    options = tiny_options(corpus, tmp_path / "run", epochs=1, batches_per_epoch=6)
    finish(torchrun(options, tmp_path))
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
    said = finish(torchrun(options, tmp_path))
    assert "left out:" in said
    weights = load_checkpoint(tmp_path / "run" / "model.safetensors").encoder.values()
    assert all(torch.isfinite(value).all() for value in weights)


def test_evaluation_with_s_norm_is_the_same_on_two_processes(trained, corpus, tmp_path):
    """Bit for bit, each process on one thread, as torchrun starts them: more threads add in another
    order.
    """
    tables = [
        word
        for name in ("enrolments", "trials")
        for word in (f"--{name}", str(corpus / f"{name}_dev.tsv"))
    ]
    utterances, model = str(corpus / "utterances.tsv"), str(trained / "model.safetensors")
    words = [
        "-m",
        "sasv",
        "evaluate",
        "--utterances",
        utterances,
        "--model",
        model,
        "--cohort",
        utterances,
        *tables,
    ]
    words += [
        "--cohort-where",
        "split=train",
        "--top",
        "5",
        "--intervals",
        "0",
        "--batch-seconds",
        "3",
        "--no-plot",
    ]
    scores = []
    for name, start in (
        ("one", []),
        ("two", ["-m", "torch.distributed.run", "--nproc-per-node", "2"]),
    ):
        command = [sys.executable, *start, *words, "--out", str(tmp_path / name)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.count("SASV-EER") == 1
        scores.append((tmp_path / name / "scores.tsv").read_bytes())
    assert scores[0] == scores[1]
