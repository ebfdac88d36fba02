"""Shards on other machines give the same bytes as one process, whichever launcher runs them and
whichever machine is lost.

The long tests run on a SLURM cluster of two nodes (``slurm.sh`` in this folder) and on a Ray
cluster of two nodes, all on this machine.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sasv.commands import (
    EmbedOptions,
    PackOptions,
    SynthesizeOptions,
    embed,
    pack,
    synthesize,
)
from sasv.core.errors import SasvError
from sasv.embeddings import extract as extraction
from sasv.parallel.launchers import LAUNCHERS, Launcher
from sasv.parallel.launchers.slurm import _parameters, minutes_of
from sasv.tables import Table, load_utterances, packing_shards
from sasv.tables.packing_shards import plan_tars

SLURM = Path(__file__).with_name("slurm.sh")
LAUNCHED = {"launcher": "ray", "shards": 3}


class Here(Launcher):
    """Runs the shards in this process, the last one first."""

    def run(self, shards, settings, logs):
        here = Path.cwd()
        for number in reversed(range(shards.count)):
            yield number, shards(number)
        os.chdir(here)


@pytest.fixture
def here(monkeypatch):
    """``--launcher ray`` runs in this process."""
    monkeypatch.setitem(LAUNCHERS.members, "ray", f"{__name__}:Here")


def contents(folder):
    """Return path -> bytes of every file of a job, except logs, markers, and locks."""
    return {
        str(path.relative_to(folder)): path.read_bytes().replace(bytes(folder), b"FOLDER")
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not path.name.startswith(".")
        and "jobs" not in path.relative_to(folder).parts
        and "parts-" not in str(path)
    }


def test_copies_in_shards_are_those_of_one_process(corpus, tmp_path, here):
    options = {"utterances": str(corpus / "utterances.tsv"), "vocoders": ["mulaw"]}
    options["where"] = "speaker=s1"
    synthesize(SynthesizeOptions(out=str(tmp_path / "whole"), **options))
    table = synthesize(SynthesizeOptions(out=str(tmp_path / "shards"), **options, **LAUNCHED))
    assert len(table) == 6
    assert contents(tmp_path / "shards") == contents(tmp_path / "whole")
    with pytest.raises(SasvError, match="--shard 1/2 cannot be used with --launcher"):
        synthesize(SynthesizeOptions(out="x", shard="1/2", **options, **LAUNCHED))


@pytest.mark.slow
def test_embeddings_in_shards_are_those_of_one_process(
    trained, corpus, tmp_path, here, monkeypatch, caplog
):
    monkeypatch.setattr(extraction, "CHUNK_SECONDS", 2.0)
    options = {
        "utterances": str(corpus / "utterances.tsv"),
        "model": str(trained / "model.safetensors"),
        "batch_seconds": 1.5,
        "where": "speaker=s1",
    }
    embed(EmbedOptions(out=str(tmp_path / "whole"), **options))
    caplog.set_level("INFO", "sasv")
    done = embed(EmbedOptions(out=str(tmp_path / "shards"), **options, **LAUNCHED))
    assert len(done.vectors) == 6
    assert "parts exist already" in caplog.text and "computing the others" not in caplog.text
    assert contents(tmp_path / "shards") == contents(tmp_path / "whole")


@pytest.mark.slow
def test_batch_seconds_fit_the_machines_that_run_the_job(
    trained, corpus, tmp_path, here, monkeypatch
):
    asked = []
    monkeypatch.setattr(
        "sasv.commands._embed.launch", lambda _, work, *rest: asked.append(work.args[0])
    )
    monkeypatch.setattr("sasv.commands._embed._extract", lambda *_, **__: None)
    for settings in ({"num_gpus": "1"}, {"num_cpus": "2"}, {"gres": "gpu:1"}):
        embed(EmbedOptions("t", "o", **LAUNCHED, launcher_options=settings))
    assert [options.batch_seconds for options in asked] == [600, 30, 600]


@pytest.mark.parametrize("audio", ["as-is", "flac"])
def test_tars_in_shards_are_those_of_one_process(corpus, tmp_path, here, audio, monkeypatch):
    options = {"table": str(corpus / "utterances.tsv"), "shard_size": "200KB", "audio": audio}
    pack(PackOptions(out=str(tmp_path / "whole"), **options))
    out = tmp_path / "shards"
    write = packing_shards.write_tar
    written = []

    def fail(path, *rest):
        written.append(path.name)
        if len(written) == 3:
            raise SasvError(f"{path}: the disk is full")
        return write(path, *rest)

    monkeypatch.setattr(packing_shards, "write_tar", fail)
    with pytest.raises(SasvError, match=r"of 3 shards failed: ./3 .*the disk is full"):
        pack(PackOptions(out=str(out), **options, **LAUNCHED))
    again = len(written)
    pack(PackOptions(out=str(out), **options, **LAUNCHED))
    assert contents(out) == contents(tmp_path / "whole")
    # What was finished before the failure was not written again.
    assert not set(written[again:]) & set(written[:2])


def test_pack_begun_by_one_process_resumes_in_shards(corpus, tmp_path, here):
    options = {"table": str(corpus / "utterances.tsv"), "shard_size": "200KB"}
    pack(PackOptions(out=str(tmp_path / "whole"), **options))
    out = shutil.copytree(tmp_path / "whole", tmp_path / "begun")
    (out / "utterances.tsv").unlink()
    shards = Table.load(out / "shards.tsv")
    for name in shards.texts("shard")[2:]:
        (out / name).unlink()
    shards.take(np.arange(2)).save(out / "shards.tsv")
    pack(PackOptions(out=str(out), **options, **LAUNCHED))
    assert contents(out) == contents(tmp_path / "whole")


def test_the_plan_of_tars_counts_headers_of_long_names():
    members = [(".wav", 700), (".wav", 1), (".wav", 9000), (".wav", 512), (".wav", 512)]
    keys = ["a", "b" * 150, "c", "d", "e"]
    assert [tuple(of) for of in plan_tars(keys, members, 10_000)] == [(0, 2), (2, 1), (3, 2)]


@pytest.mark.parametrize(
    "text, minutes",
    [("30", 30), ("02:00:00", 120), ("90:30", 91), ("1-12", 36 * 60), ("2-00:10:00", 2890)],
)
def test_time_limits_of_sbatch_are_parsed(text, minutes):
    assert minutes_of(text) == minutes


def test_settings_are_passed_to_sbatch_unchanged():
    found = _parameters({"partition": "gpu", "cpus-per-task": "4", "array_parallelism": "100"})
    assert found["additional_parameters"] == {"partition": "gpu", "cpus-per-task": "4"}
    assert found["array_parallelism"] == 100
    assert found["time"] == 240
    for wrong in ({"time": "soon"}, {"array_parallelism": "many"}):
        with pytest.raises(SasvError, match=r"--launcher-options\.(time|array_parallelism)"):
            _parameters(wrong)


def test_settings_that_ray_does_not_know_and_missing_engines(corpus, tmp_path, monkeypatch):
    options = {"table": str(corpus / "utterances.tsv"), "out": str(tmp_path / "out")}
    for module, launcher in (("ray", "ray"), ("submitit", "slurm")):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            with pytest.raises(SasvError, match=rf'pip install "sasv\[{module}\]"'):
                pack(PackOptions(**options, launcher=launcher))
    monkeypatch.setitem(sys.modules, "ray", sys)
    with pytest.raises(SasvError, match="partition is not an option for Ray; use add"):
        pack(PackOptions(**options, launcher="ray", launcher_options={"partition": "gpu"}))


@pytest.fixture
def slurm(tmp_path):
    """A SLURM cluster of two nodes, and a function that stops one of them as in a power failure."""
    for tool in ("slurmctld", "slurmd", "munged"):
        if shutil.which(tool, path=os.environ["PATH"] + ":/usr/sbin") is None:
            pytest.skip(f"{tool} is not installed: apt-get install slurm-wlm munge")
    if os.geteuid() != 0:
        pytest.skip("needs root to start a SLURM")
    pytest.importorskip("submitit", reason="submitit is not installed: pip install sasv[submitit]")
    folder = tmp_path / "slurm"
    folder.mkdir()
    subprocess.run([SLURM, "up", folder], check=True)
    try:
        yield (
            {"SLURM_CONF": str(folder / "slurm.conf")},
            ["--launcher", "slurm", "--launcher-options.time", "00:10:00"],
            lambda: subprocess.run([SLURM, "kill", folder, "two"], check=True),
        )
    finally:
        subprocess.run([SLURM, "down", folder], check=True)


@pytest.fixture
def ray_cluster(monkeypatch):
    """A Ray cluster of two nodes, and a function that kills the second one."""
    pytest.importorskip("ray", reason="ray is not installed: pip install sasv[ray]")
    # By default, tasks have the lowest priority, and do not get enough time on a busy machine.
    monkeypatch.setenv("RAY_worker_niceness", "0")
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 1,
            "object_store_memory": 100 << 20,
            "include_dashboard": False,
        },
    )
    second = cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
    try:
        cluster.wait_for_nodes()
        yield (
            {"RAY_ADDRESS": cluster.address},
            ["--launcher", "ray", "--launcher-options.num_cpus", "1"],
            lambda: cluster.remove_node(second, allow_graceful=False),
        )
    finally:
        cluster.shutdown()


def run(words, environment=None):
    """Start a command as a user does."""
    words = [sys.executable, "-m", "sasv", *map(str, words)]
    return subprocess.Popen(
        words, env={**os.environ, **(environment or {})}, text=True, stderr=subprocess.PIPE
    )


def finished(process):
    """Return the messages of a command that must have succeeded."""
    said = process.communicate(timeout=900)[1]
    assert process.returncode == 0, said
    return said


def wait_for(process, count, folder, pattern):
    while process.poll() is None and len(list(folder.rglob(pattern))) < count:
        time.sleep(0.05)
    assert process.poll() is None, process.communicate()[1]


@pytest.mark.long
@pytest.mark.parametrize("engine", ["slurm", "ray_cluster"])
def test_lost_node_loses_only_its_unfinished_shards(engine, corpus, trained, tmp_path, request):
    environment, words, lose_a_node = request.getfixturevalue(engine)
    plain = load_utterances(corpus / "utterances.tsv")
    table = tmp_path / "utterances.tsv"  # an hour of speech, of which 48 files exist
    rows = np.tile(np.arange(len(plain)), 3000 // len(plain))
    columns = {name: np.array(plain.table.texts(name))[rows] for name in plain.table.columns}
    columns["path"] = [str(Path(plain.path(row)).absolute()) for row in rows]
    columns["utterance"] = [f"{number:04}" for number in range(len(rows))]
    Table.build(columns).save(table)
    few = corpus / "utterances.tsv"
    model = trained / "model.safetensors"
    jobs = {
        "copies": (["synthesize", few, "--vocoders", "[world,mulaw]", "--out"], "*.flac"),
        "tars": (["pack", few, "--shard-size", "200KB", "--audio", "flac"], "*.tar"),
        "embeddings": (["embed", table, "--model", model, "--out"], "*.npz"),
    }
    for name, (command, pattern) in jobs.items():
        finished(run([*command, tmp_path / "whole" / name]))
        out = tmp_path / "shards" / name
        count = "6" if name == "copies" else "2"
        launched = run([*command, out, *words, "--shards", count], environment)
        if name == "copies":
            wait_for(launched, 10, out, pattern)
            lose_a_node()
            kept = {path: path.stat().st_mtime_ns for path in out.rglob("[!.]" + pattern)}
            assert len(kept) < 2 * len(plain)
        finished(launched)
        assert contents(out) == contents(tmp_path / "whole" / name), name
        if name == "copies":  # what had been made before was not made again
            logged = "".join(path.read_text() for path in out.rglob("made.jsonl"))
            made = [line for line in logged.splitlines() if line.count(",") > 2]
            assert len(made) <= 2 * len(plain) + 1
            assert all(path.stat().st_mtime_ns == date for path, date in kept.items())


@pytest.mark.long
def test_a_killed_command_leaves_jobs_that_the_next_one_cancels(slurm, corpus, tmp_path):
    environment, words, _ = slurm
    command = ["synthesize", corpus / "utterances.tsv", "--vocoders", "[world]"]
    finished(run([*command, "--out", tmp_path / "whole"]))
    out = tmp_path / "shards"
    command += ["--out", out, *words, "--shards", "6"]
    killed = run(command, environment)
    wait_for(killed, 5, out, "*.flac")
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    finished(run(command, environment))
    assert contents(out) == contents(tmp_path / "whole")
    asked = ["squeue", "--noheader"]
    for _ in range(60):  # the last jobs have written their results, and are about to end
        queued = subprocess.run(asked, env={**os.environ, **environment}, capture_output=True)
        if not queued.stdout.strip():
            break
        time.sleep(1)
    assert not queued.stdout.strip()
