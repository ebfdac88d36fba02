"""The demonstration at tiny scale, and every code block of the README on what it leaves."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sasv.audio import read_audio
from sasv.commands import DemoOptions, demo
from sasv.corpora import synthetic
from sasv.encoders.frontend import LogMel
from sasv.tables import load_scores, load_utterances

ROOT = Path(__file__).resolve().parents[1]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder in which the demonstration has run, small."""
    folder = tmp_path_factory.mktemp("home")
    before = Path.cwd()
    os.chdir(folder)
    try:
        demo(DemoOptions(speakers=16, epochs=1, batches=2, pairs=4, workers=0, device="cpu"))
    finally:
        os.chdir(before)
    return folder


def test_demo_leaves_scores_plot_and_model(home):
    scores = load_scores(home / "demo/evaluation/scores.tsv")
    assert all(count > 0 for count in scores.counts().values())
    assert set(scores.attacks[1]) == {"-", "griffin-lim", "world"}
    assert (home / "demo/evaluation/scores.png").exists()
    assert (home / "demo/stage1/model.safetensors").exists()
    table = load_utterances(home / "demo/tables/utterances.tsv")
    of = {part: set(table.where(f"split={part}").speakers[1]) for part in ("train", "dev", "test")}
    assert not of["train"] & of["dev"] and not of["train"] & of["test"] and not of["dev"] & of["test"]
    claimed = set(scores.speakers[1])
    assert claimed == of["test"]


def test_demo_on_a_librispeech_style_folder(home, tmp_path, capsys):
    """``make demo CORPUS=...`` on a folder of that layout, here the rendered one."""
    corpus = str(home / "demo/speech/LibriSpeech")
    result = demo(DemoOptions(corpus, str(tmp_path / "d"), epochs=1, batches=1, pairs=4, vocoders=["griffin-lim"]))
    assert result["targets"] > 0
    assert f"The speech is yours ({corpus})" in capsys.readouterr().out
    dry = subprocess.run(["make", "-n", "demo", "CORPUS=/some where"], cwd=ROOT, capture_output=True, text=True)
    assert '--corpus "/some where"' in dry.stdout


def test_synthetic_speakers_are_distinct(home):
    """Long-term spectra of two halves of each speaker's sentences find each other among all speakers."""
    root = home / "demo/speech/LibriSpeech/synthetic"
    frontend = LogMel()
    spectra = {0: [], 1: []}
    for speaker in sorted(root.iterdir()):
        files = sorted(speaker.rglob("*.flac"))
        for half in (0, 1):
            waves = np.concatenate([read_audio(path) for path in files[half::2]])
            import torch

            power = (
                torch.stft(torch.from_numpy(waves), 512, window=torch.hann_window(512), return_complex=True).abs() ** 2
            )
            spectra[half].append(torch.log(power.mean(dim=1) @ frontend[1].mel_scale.fb + 1e-9).numpy())
    one, two = (np.stack(spectra[half]) for half in (0, 1))
    distance = np.abs(one[:, None] - two[None]).mean(axis=2)
    assert (distance.argmin(axis=1) == np.arange(len(one))).all()


def test_rendering_is_reproducible(home, tmp_path):
    again = synthetic.render(tmp_path, 16)
    path = "synthetic/sasv0003/0/sasv0003-0-0001.flac"
    np.testing.assert_array_equal(read_audio(again / path), read_audio(home / "demo/speech/LibriSpeech" / path))


def test_readme_has_both_commands_first():
    assert BLOCKS[0] == ("bash", "make demo\nmake test\n")


@pytest.mark.parametrize("language, code", BLOCKS, ids=[f"block{index}" for index in range(len(BLOCKS))])
def test_readme_blocks_run(language, code, home):
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    if language == "python":
        result = subprocess.run([sys.executable, "-c", code], cwd=home, capture_output=True, text=True)
    elif code.startswith("make "):
        targets = [line.split()[1] for line in code.splitlines()]
        result = subprocess.run(["make", "-n", *targets], cwd=ROOT, capture_output=True, text=True)
    else:
        script = ["bash", "-euo", "pipefail", "-c", code]
        result = subprocess.run(script, cwd=home, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
