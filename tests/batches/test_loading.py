"""Loading with workers that die or stop, or without enough shared memory, open files, or memory:
there is an error message, and never a hang.
"""

import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import buzz
from sasv.audio import write_audio
from sasv.batches import loading
from sasv.batches.dataset import CropDataset, PlanSampler
from sasv.batches.loading import BatchLoader, explanation, failures_explained
from sasv.batches.plan import PairPlanner
from sasv.core.errors import SasvError
from sasv.tables import Table, load_utterances


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("loading")
    names = [f"u{index}" for index in range(4)]
    for index, name in enumerate(names):
        write_audio(root / f"{name}.wav", buzz(8000, seed=index))
    Table.build(
        {"utterance": names, "path": [f"{name}.wav" for name in names], "speaker": names}
    ).save(root / "utterances.tsv")
    return CropDataset(load_utterances(root / "utterances.tsv"), 20)


def sampler(batches=40):
    return PlanSampler(
        PairPlanner(
            np.arange(4), np.zeros(4, bool), np.zeros(4, int), 4, 2, batches_per_epoch=batches
        ).plan(0),
        0,
        0,
    )


@pytest.mark.slow
@pytest.mark.parametrize("deadly", [signal.SIGKILL, signal.SIGSTOP])
def test_killed_or_stopped_worker_is_reported_in_one_line(dataset, deadly):
    loader = BatchLoader(dataset, 1, pairs=2, timeout=2.0)
    expected = "died" if deadly == signal.SIGKILL else "no batch arrived"
    with (
        pytest.raises(SasvError, match=f"{expected}.*run the same command again"),
        failures_explained(),
        loader.batches(sampler()) as batches,
    ):
        next(batches)
        (worker,) = multiprocessing.active_children()
        os.kill(worker.pid, deadly)
        for _ in batches:
            pass
        torch.zeros(1)
    assert not multiprocessing.active_children()


def test_workers_survive_the_signals_of_their_group(dataset):
    loader = BatchLoader(dataset, 1, pairs=2)
    with loader.batches(sampler(20)) as batches:
        next(batches)
        for worker in multiprocessing.active_children():
            for number in (signal.SIGTERM, signal.SIGINT):
                os.kill(worker.pid, number)
        assert sum(1 for _ in batches) == 19


def test_loading_works_with_little_shared_memory(dataset, monkeypatch, caplog):
    with BatchLoader(dataset, 1, pairs=2).batches(sampler(2)) as batches:
        usual = list(batches)
    monkeypatch.setattr(loading, "free_shared_memory", lambda: 1000)
    loader = BatchLoader(dataset, 1, pairs=2)
    assert not loader.shared_memory
    with loader.batches(sampler(2)) as batches:
        for (waves, labels), (other, same) in zip(usual, batches, strict=True):
            assert torch.equal(waves, other) and torch.equal(labels, same)


def test_loading_works_with_a_low_limit_of_open_files(dataset, monkeypatch):
    monkeypatch.setattr(loading, "raise_file_limit", lambda wanted: 64)
    with pytest.raises(SasvError, match="at most 64 files can be open.*ulimit -n"):
        BatchLoader(dataset, 8, pairs=2)
    assert not BatchLoader(dataset, 2, pairs=2).shared_memory


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "not enough memory"),
        (OSError(12, "Cannot allocate memory"), "not enough memory"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            "not enough memory",
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "not enough memory"),
        (MemoryError("Caught MemoryError in DataLoader worker process 0."), "not enough memory"),
        (OSError(24, "Too many open files"), "too many open files"),
        (RuntimeError("received 0 items of ancdata"), "too many open files"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error."), "worker died"),
        (RuntimeError("DataLoader timed out after 600 seconds"), "no batch arrived"),
    ],
)
def test_known_failures_are_explained(error, words):
    assert words in explanation(error)


def test_other_failures_are_raised_unchanged():
    assert explanation(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
    with pytest.raises(FileNotFoundError), failures_explained():
        Path("/nonexistent/file").read_bytes()
