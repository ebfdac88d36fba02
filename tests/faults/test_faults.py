"""A short run of the trials of ``make faults``: damaged files, processes killed at changes of the
file system, and full disks.
"""

import mmap
import os
import signal
import time

import numpy as np
import pytest
import torch

from faults import damage, files, kills, running
from faults.__main__ import markdown
from faults.running import (
    CRASH,
    DONE,
    HANG,
    MEMORY,
    NOT_FINITE,
    REFUSED,
    TRACEBACK,
    Fault,
    Trial,
    run_trials,
)
from sasv.core.errors import SasvError

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="the trials need os.fork, which Windows lacks"
)


@pytest.fixture(scope="module")
def threads():
    """Restore the number of PyTorch threads afterwards, because the trials set it to one."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory, threads):
    found = files.Seeds(tmp_path_factory.mktemp("faults"))
    files.prepare(found)
    return found


@pytest.fixture(scope="module")
def stage(tmp_path_factory, threads, small_runs):
    """Use small presets. The fixture small_runs restores the usual ones."""
    names = ("prepare", "embed", "calibrate", "enrol --more", "store rotate", "serve")
    found = kills.Stage(tmp_path_factory.mktemp("kills"), names)
    kills.prepare(found)
    return found


def refuse():
    raise SasvError("a.wav: broken; download it again")


def no_words():
    raise SasvError("")


def not_finite():
    raise Fault(NOT_FINITE, "verdict")


def take_memory():
    """Map and fill 0.5 GB of new memory. An ordinary allocation could reuse memory that is free."""
    with mmap.mmap(-1, 1 << 29) as memory:
        memory.write(b"x" * (1 << 29))


@pytest.mark.slow
def test_every_outcome_is_recognised(monkeypatch):
    monkeypatch.setattr(running, "MOST_BYTES", 1 << 28)
    works = {
        DONE: [lambda: 1],
        REFUSED: [refuse],
        TRACEBACK: [lambda: 1 / 0, no_words],
        CRASH: [lambda: os.kill(os.getpid(), signal.SIGKILL), lambda: os._exit(3)],
        MEMORY: [take_memory, lambda: np.zeros(1 << 40)],
        NOT_FINITE: [not_finite],
    }
    trials = [
        Trial(f"{kind} {at}", kind, work)
        for kind, works in works.items()
        for at, work in enumerate(works)
    ]
    figures = run_trials(trials)
    assert figures.tried == len(trials) == 9
    for kind, several in works.items():
        assert figures.by_kind[kind] == {kind: len(several)}
    assert figures.failed == 7 and "ZeroDivisionError" in figures.faults[0]["words"]
    assert "| **damaged audio files** | 9 | 2 | 0 | 2 | 2 | 1 |" in markdown({"audio": figures})


def test_trial_that_hangs_is_ended_and_the_next_one_runs():
    trials = [Trial("a", HANG, lambda: time.sleep(60)), Trial("b", DONE, lambda: None)]
    figures = run_trials(trials, seconds=0.3)
    assert figures.by_kind == {HANG: {HANG: 1}, DONE: {DONE: 1}}


@pytest.mark.parametrize("kind", damage.BYTES)
def test_damage_is_the_same_for_the_same_seed(kind):
    data = np.random.default_rng(0).bytes(2000)
    first, again, other = (
        damage.damaged(kind, data, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert first == again != other and first != data


@pytest.mark.slow
@pytest.mark.parametrize(
    "make, count",
    [
        (files.audio_trials, 45),
        (files.checkpoint_trials, 12),
        (files.field_trials, 12),
        (files.table_trials, 100),
    ],
)
def test_damaged_files_are_read_or_refused_in_one_line(seeds, make, count):
    figures = run_trials(list(make(count, 1, seeds)))
    assert figures.faults == [] and figures.tried == count
    assert figures.outcomes[REFUSED] > count / 10


@pytest.mark.slow
def test_killed_commands_are_completed_by_their_next_run(stage):
    figures = run_trials(list(kills.kill_trials(8, 1, stage)))
    assert figures.faults == [] and figures.tried == 8


@pytest.mark.slow
def test_commands_on_a_full_disk_are_completed_by_their_next_run(stage):
    figures = run_trials(list(kills.kill_trials(4, 1, stage, kills.FULL)))
    assert figures.faults == [] and figures.tried == 4


def test_trap_counts_changes_and_interrupts(tmp_path):
    """A kill during a write leaves half of the data. A full disk refuses writes, but allows files
    to be removed.
    """

    def write(out):
        out.mkdir()
        with open(out / "log", "w") as stream:
            stream.write("12345678")
        (out / "log").rename(out / "done")

    stage = kills.Stage(tmp_path)
    scenario = kills.Scenario("write", lambda out: write(out / "x"), 1)
    for at, left in enumerate([None, "", "1234", "12345678"]):
        stage.begin(scenario)
        assert stage.run(scenario, at + 1, kills.KILL) == (kills.KILL, "")
        path = stage.work / "out/x/log"
        assert (path.read_text() if path.exists() else None) == (None if at == 1 else left)
    stage.begin(scenario)
    outcome, words = stage.run(scenario, 3, kills.FULL)
    assert outcome == TRACEBACK and "No space left" in words
