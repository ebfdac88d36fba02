"""Every command of the guides runs at tiny scale. Only options that reduce the amount of training
are added.
"""

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from torch.distributed.run import get_args_parser

from conftest import SMALL
from forked import Forked
from sasv import cli
from sasv.audio import write_audio
from sasv.tables import Table
from sasv.training.recipes import recipe_values

pytestmark = pytest.mark.slow

GUIDES = sorted(
    path
    for path in (Path(__file__).resolve().parents[2] / "docs" / "guides").glob("*.md")
    if path.stem != "service"  # tests/service/test_service_guide.py runs it
)
ELSEWHERE = ("--enrolled", "sasv enrol", "--store voiceprints.db")
"""Parts of commands that want speech, which the files here are not. They run in
tests/evaluation/test_own_people.py, tests/runtime, and tests/store.
"""
SIZES = " ".join(f"--encoder-options.{name}={value}" for name, value in SMALL["ecapa-tdnn"].items())


def small(command):
    """Return a command with options that make it small."""
    words = shlex.split(command, comments=True)
    verb = words[words.index("sasv") + 1] if "sasv" in words else ""
    if verb == "train":
        recipe = words[words.index("sasv") + 2]
        spoofs = "--spoof-pairs 2 " if recipe_values(recipe).get("spoof_pairs") else ""
        command += (
            f" --epochs 1 --batches-per-epoch 2 --pairs 2 {spoofs}--crop-frames 20 "
            f"--num-workers 0 {SIZES}"
        )
    elif verb == "reproduce" and "--dry-run" not in words:
        scale = "" if "--scale" in words else " --scale tiny"
        command += f"{scale} --epochs 1 --batches-per-epoch 1 --pairs 2 --voices 10"
    elif verb == "verify":
        command += " --min-speech 0"  # the voices of these tests are no speech
    elif verb == "stress":
        command += (
            " --min-speech 0 --recordings 1 --impostors 1 --conditions telephone --listen 1"
            " --vocoders source-filter --intervals 10"
        )
        command += "" if "--system" in words else " --system compact"
    if "--launcher" in words:  # tests/parallel/test_launchers.py runs SLURM and Ray
        command = re.sub(r"--launcher-options\.\S+ \S+", "", command)
        command = re.sub(r"--launcher \w+", "--launcher local", command)
        command = re.sub(r"--(shards|num-workers) \d+", "", command)
    return (
        command.replace("--nproc-per-node 4", "--nproc-per-node 2")
        .replace("1-64", "1-2")
        .replace("/64", "/2")
    )


def blocks(guide):
    """Yield the kind and the lines of each block, continued lines joined."""
    for kind, text in re.findall(
        r"^```(\w+)\n(.*?)^```", guide.read_text(), re.MULTILINE | re.DOTALL
    ):
        yield kind, text.replace("\\\n", " ").splitlines()


@pytest.fixture
def place(corpora, corpus, trained, tmp_path, monkeypatch):
    """A working folder with corpora, speech, scores, a mirror of weights, and replacements for
    SLURM and for the commands of a script, which ask the test to run them.
    """
    folder = tmp_path / "work"
    (folder / "corpora" / "ASVspoof2019").mkdir(parents=True)
    for name, source in (
        ("voxceleb2", "vox2"),
        ("asvspoof5", "asvspoof5"),
        ("ASVspoof2019/LA", "la/LA"),
    ):
        (folder / "corpora" / name).symlink_to(corpora / source)
    noise = np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    for kind in ("noise", "speech", "music"):
        write_audio(folder / "corpora" / "musan" / kind / "x" / "1.wav", 0.1 * noise)
    decay = 0.3 * noise[:4000] * np.exp(-np.arange(4000, dtype=np.float32) / 400)
    write_audio(folder / "corpora" / "rirs" / "smallroom" / "1.wav", decay)
    for index, name in enumerate(("anna", "ben", "clara", "david")):
        (folder / "speech" / name).mkdir(parents=True)
        for number in (1, 2, 3):
            shutil.copy(
                corpus / "audio" / f"s{index}-{number}.wav",
                folder / "speech" / name / f"{number}.wav",
            )
    (folder / "own").symlink_to(corpus)
    (folder / "audio").symlink_to(corpus / "audio")
    for table, name in (("utterances", "dev"), ("enrolments_dev",) * 2, ("trials_dev",) * 2):
        shutil.copy(corpus / f"{table}.tsv", folder / f"{name}.tsv")
    (folder / "mirror").mkdir()
    cli.main(
        [
            "convert",
            str(trained / "model.safetensors"),
            str(folder / "mirror" / "row3-ska-train.model"),
        ]
    )
    scores(folder / "scores")
    tools = folder / "tools"
    tools.mkdir()
    os.mkfifo(folder / "asked")
    os.mkfifo(folder / "answered")
    ask = 'printf "%s\\0" "${0##*/}" "$@" > asked; read status < answered; exit $status'
    stand_ins = {
        "sasv": ask,
        "torchrun": ask,
        "sbatch": 'case "$1" in --array=*) n=${1##*-}; shift; for i in $(seq $n); do '
        "export SLURM_ARRAY_TASK_ID=$i; "
        'if [ "$1" = --wrap ]; then bash -c "$2"; else bash "$1"; fi '
        '|| exit 1; done;; *) bash "$1";; esac',
        "srun": 'exec "$@"',
        "scontrol": "echo 127.0.0.1",
    }
    for name, text in stand_ins.items():
        (tools / name).write_text(f"#!/bin/bash\nset -e\n{text}\n")
        (tools / name).chmod(0o755)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SASV_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", os.pathsep.join([str(tools), os.environ["PATH"]]))
    monkeypatch.setenv("SLURM_NNODES", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return folder


def scores(folder):
    """Write score files of two systems, and one in the layouts of other toolkits."""
    folder.mkdir()
    for seed, part in ((0, "dev"), (1, "eval")):
        rng = np.random.default_rng(seed)
        labels = rng.choice(3, 300)
        cells = {
            "speaker": [f"s{number % 9}" for number in range(300)],
            "utterance": [f"u{number}" for number in range(300)],
            "label": [("target", "nontarget", "spoof")[label] for label in labels],
            "attack": ["A07" if label == 2 else "-" for label in labels],
        }
        drawn = {
            "asv_score": rng.standard_normal(300) + 2 * (labels != 1),
            "cm_score": rng.standard_normal(300) + 2 * (labels != 2),
        }
        texts = {name: [f"{value:.5f}" for value in values] for name, values in drawn.items()}
        Table.build(cells | {"score": texts["asv_score"]} | texts).save(folder / f"{part}.tsv")
        if part == "dev":
            continue
        Table.build(cells | {"score": texts["asv_score"]}).save(folder / "system-a.tsv")
        both = [f"{value:.5f}" for value in drawn["asv_score"] + drawn["cm_score"]]
        Table.build(cells | {"score": both}).save(folder / "system-b.tsv")
        rows = list(zip(*cells.values(), *texts.values()))
        (folder / "asv.txt").write_text("".join(f"{row[0]} {row[1]} {row[4]}\n" for row in rows))
        (folder / "cm.txt").write_text("".join(f"{row[1]} {row[5]}\n" for row in rows))
        (folder / "key.txt").write_text(
            "".join(
                f"{row[0]} {row[1]} {row[3] if row[3] != '-' else 'bonafide'} {row[2]}\n"
                for row in rows
            )
        )


def run_script(lines, folder):
    """Run lines with bash. Its commands run in this process, because each start of Python and
    PyTorch takes seconds; those of torchrun run in separate processes.
    """
    script = ["bash", "-euo", "pipefail", "-c", "\n".join(map(small, lines))]
    running = subprocess.Popen(script, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    asked = os.open("asked", os.O_RDONLY | os.O_NONBLOCK)
    # Never closed while the script runs, as the next command would find the end of the file.
    answered = os.open("answered", os.O_RDWR)
    words = b""
    while running.poll() is None:
        time.sleep(0.01)
        with contextlib.suppress(BlockingIOError):  # a command is about to write
            words += os.read(asked, 65536)
        if words.endswith(b"\0"):
            status = run_words(words.decode().split("\0")[:-1], folder)
            os.write(answered, f"{status}\n".encode())
            words = b""
    os.close(asked)
    os.close(answered)
    output, errors = running.communicate()
    assert running.returncode == 0, f"{lines}\n{output[-1000:]}{errors[-3000:]}"


def run_words(words, folder):
    """Run a command that a script requests; return its exit status."""
    if words[0] == "sasv":
        return cli.main(words[1:])
    options = get_args_parser().parse_args(words[1:])
    assert options.module and options.training_script == "sasv"
    count = int(options.nproc_per_node)
    return max(Forked(options.training_script_args, folder / "said", count).end())


@pytest.mark.parametrize(
    "guide",
    [
        # exports take half a minute
        pytest.param(path, marks=pytest.mark.long if path.stem == "deploy" else (), id=path.stem)
        for path in GUIDES
    ],
)
def test_every_command_of_a_guide_runs(guide, place, capsys, small_runs):
    named = re.findall(r"`(\w+\.sh)`", guide.read_text())
    found = list(blocks(guide))
    for lines in [lines for kind, lines in found if kind == "sh"]:  # a file that the text mentions
        (place / named.pop(0)).write_text("\n".join(map(small, lines)) + "\n")
    modules = re.findall(r"`(\w+\.py)`", guide.read_text())
    for lines in [lines for kind, lines in found if kind == "python" and modules]:
        (place / modules.pop(0)).write_text("\n".join(lines) + "\n")
    for lines in [lines for kind, lines in found if kind == "bash"]:
        if all(line.startswith("sasv ") for line in lines):
            for line in lines:
                if any(words in line for words in ELSEWHERE):
                    continue
                assert cli.main(shlex.split(small(line), comments=True)[1:]) == 0, (
                    f"{line}\n{capsys.readouterr().err[-2000:]}"
                )
            continue
        run_script(lines, place)
    for lines in [lines for kind, lines in found if kind == "python"]:
        # The modules that it imports have their own tests.
        compile("\n".join(lines), guide.name, "exec")
    assert not named and {kind for kind, _ in found} <= {"bash", "sh", "python", "console"}


def test_the_guides_are_linked():
    text = (GUIDES[0].parents[2] / "README.md").read_text()
    assert all(f"docs/guides/{guide.name}" in text for guide in GUIDES)
