"""Signals to a training run and to its whole process group, an interrupted evaluation, and checks
before the run.
"""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from conftest import make_corpus, tiny_options
from forked import written
from sasv.checkpoints import load_checkpoint
from sasv.commands import train
from sasv.core.errors import SasvError
from sasv.training.build import build_trainer
from sasv.training.selection import DevelopmentSet
from sasv.training.stopping import Stopped, StopRequest
from sasv.training.trainer import Trainer


def start(options, tmp_path, launcher=()):
    """Run ``sasv train`` as the leader of a new process group; return it when its first state is
    saved.
    """
    path = written(options, tmp_path)
    words = [sys.executable, *launcher, "-m", "sasv", "train", str(path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        words, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    waiting = threading.Event()
    while not Path(options.out, "state.pt").exists():
        assert process.poll() is None, process.communicate()[1]
        waiting.wait(0.02)
    return process


def position(run):
    state = torch.load(Path(run, "state.pt"), weights_only=True)
    return state["epoch"], state["batch"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 2), pytest.param(signal.SIGINT, 130, marks=pytest.mark.long)],
)
def test_signal_to_the_process_group_saves_and_is_reported_in_one_line(
    corpus, tmp_path, number, status
):
    """SLURM, systemd, timeout, and a terminal send signals to the process and to its DataLoader
    workers.
    """
    options = tiny_options(
        corpus, tmp_path / "run", batches_per_epoch=5000, save_minutes=0.0, num_workers=2
    )
    process = start(options, tmp_path)
    before = position(options.out)
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == status, said
    assert "Traceback" not in said and "to resume" in said.splitlines()[-1]
    assert position(options.out) > before or position(options.out)[1] > 0


@pytest.mark.slow
def test_killed_worker_is_reported_in_one_line(corpus, tmp_path):
    options = tiny_options(
        corpus, tmp_path / "run", batches_per_epoch=5000, save_minutes=0.0, num_workers=1
    )
    process = start(options, tmp_path)
    with open(f"/proc/{process.pid}/task/{process.pid}/children") as stream:
        workers = [int(word) for word in stream.read().split()]
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2 and "Traceback" not in said, said
    assert "a DataLoader worker died" in said.splitlines()[-1]


@pytest.mark.long
@pytest.mark.parametrize("count", [1, 2])
def test_signal_to_the_process_group_of_torchrun_saves(corpus, tmp_path, count):
    options = tiny_options(
        corpus, tmp_path / "run", batches_per_epoch=5000, save_minutes=0.0, num_workers=1
    )
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    process = start(options, tmp_path, launcher)
    os.killpg(process.pid, signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert "stopped by SIGTERM and saved" in said
    assert "RuntimeError" not in said and "DataLoader" not in said
    assert position(options.out) > (0, 0)


@pytest.mark.slow
def test_a_run_stopped_while_it_is_evaluated_does_not_train_the_epoch_again(
    corpus, trained, tmp_path, monkeypatch
):
    original = DevelopmentSet.evaluate
    calls = iter(range(100))

    def stopped(self, *rest):
        if next(calls) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *rest)

    monkeypatch.setattr(DevelopmentSet, "evaluate", stopped)
    with pytest.raises(SasvError, match="stopped by SIGTERM and saved"):
        train(tiny_options(corpus, tmp_path))
    assert position(tmp_path) == (2, 0)
    trained_epochs = []
    once = Trainer._train_epoch
    monkeypatch.setattr(
        Trainer,
        "_train_epoch",
        lambda self: trained_epochs.append(self.position.epoch) or once(self),
    )
    model = load_checkpoint(train(tiny_options(corpus, tmp_path)))
    whole = load_checkpoint(trained / "model.safetensors")
    assert trained_epochs == [2]
    assert all(torch.equal(model.encoder[key], whole.encoder[key]) for key in whole.encoder)
    assert model.specification.training == whole.specification.training
    assert (tmp_path / "metrics.csv").read_text().count("\n") == 4


def test_a_second_interrupt_ends_at_once():
    request = StopRequest()
    with request.listening():
        os.kill(os.getpid(), signal.SIGINT)
        assert request.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Stopped), request.at_once():
            pass


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
def test_a_closed_terminal_and_sigusr1_request_a_stop():
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # it is ignored if nohup runs the tests
    try:
        for number in (signal.SIGHUP, signal.SIGUSR1):
            request = StopRequest()
            with request.listening():
                os.kill(os.getpid(), number)
                assert request.signal == number
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
        request = StopRequest()
        with request.listening():
            os.kill(os.getpid(), signal.SIGHUP)
            assert request.signal is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_unusable_development_set_is_refused_before_the_first_epoch(corpus, tmp_path):
    lines = (corpus / "trials_dev.tsv").read_text().splitlines()
    bona_fide = tmp_path / "trials.tsv"
    bona_fide.write_text("\n".join(line for line in lines if "\tspoof\t" not in line) + "\n")
    with pytest.raises(SasvError, match="sasv_eer cannot be computed .*; choose another --metric"):
        build_trainer(
            tiny_options(corpus, tmp_path / "a", dev_trials=str(bona_fide), metric="sasv_eer")
        )
    own = make_corpus(tmp_path / "corpus")
    (own / "audio" / "s6-1.wav").write_bytes(b"broken")
    with pytest.raises(SasvError, match=r"1 of \d+ development files cannot be read \(.*s6-1.wav"):
        build_trainer(tiny_options(own, tmp_path / "b"))
