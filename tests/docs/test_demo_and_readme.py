"""The demonstration at tiny scale, and every code block of the README on its results."""

import itertools
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sasv import cli
from sasv.audio import read_audio
from sasv.commands import DemoOptions, ReproduceOptions, demo
from sasv.commands._demo import opening
from sasv.corpora import synthetic
from sasv.frontends.logmel import mel_filters
from sasv.reproduction.small import balanced, speech
from sasv.synthesis.copies import union
from sasv.tables import Table, load_scores, load_trials, load_utterances

pytestmark = pytest.mark.slow

UNSEEN = ReproduceOptions().unseen
ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(
    r"^```(\w+)\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
)


@pytest.fixture(scope="module")
def home(tmp_path_factory, small_runs):
    """A folder in which a small demonstration has run."""
    folder = tmp_path_factory.mktemp("home")
    before = Path.cwd()
    os.chdir(folder)
    try:
        demo(DemoOptions(voices=10, epochs=1, batches_per_epoch=2, pairs=2, device="cpu"))
    finally:
        os.chdir(before)
    return folder


def test_demo_leaves_table_report_and_models(home):
    rows = {row["row"]: row for row in json.loads((home / "demo/table.json").read_text())}
    assert set(rows) == {1, 2, 3, 6, 7}
    scores = load_scores(Path(home / rows[7]["metrics"]["folder"]) / "scores.tsv")
    assert all(count > 0 for count in scores.counts().values())
    assert set(scores.attacks[1]) == {"-", UNSEEN}
    for name in (
        "report/report.html",
        "table/report.html",
        "models/ecapa-tdnn/stage1/model.safetensors",
    ):
        assert (home / "demo" / name).exists()
    table = load_utterances(home / "demo/tables/la/utterances.tsv")
    heard = set(load_utterances(home / "demo/copies/vox2/utterances.tsv").attacks[1])
    heard |= set(table.where("split=train,dev").attacks[1])
    assert UNSEEN not in heard and heard > {"-"}
    of = {part: set(table.where(f"split={part}").speakers[1]) for part in ("train", "dev", "eval")}
    of["vox2"] = set(load_utterances(home / "demo/tables/vox2/utterances.tsv").speakers[1])
    for one, other in itertools.combinations(of, 2):
        assert not of[one] & of[other], (one, other)
    assert set(scores.speakers[1]) == of["eval"]


@pytest.mark.long
def test_demo_says_what_it_does_and_what_to_type_next(home, tmp_path, caplog):
    """``make demo CORPUS=...`` on a folder in this layout, here the rendered one, and then a second
    time, with nothing to do.
    """
    corpus = str(home / "demo/speech/LibriSpeech")
    options = DemoOptions(corpus, str(tmp_path / "d"), epochs=1, batches_per_epoch=1, pairs=2)
    results = demo(options)
    out = f"{opening(options)}\n{results.text}"
    assert (
        out.startswith("Spoofing-aware speaker verification")
        and "nine to thirteen minutes on two cores" in out
    )
    found = {result.row: result.metrics["sasv_eer"] for result in results}
    assert f"{found[2]:.1f}% -> {found[6]:.1f}% -> {found[7]:.1f}%" in out
    falls = found[2] > found[6] > found[7]
    assert ("each stage lowers the error" in out) == falls
    assert out.index("row   Stage 1") < out.index("report  ") < out.index("Next, on real speech")
    assert "synthetic" not in out.rpartition("SASV-EER of Stage 1")[2]
    caplog.set_level("INFO", "sasv")
    caplog.clear()
    demo(options)
    said = [record.getMessage() for record in caplog.records]
    assert sum("done already" in line for line in said) == 16
    assert not any("epoch" in line for line in said)
    dry = subprocess.run(
        ["make", "-n", "demo", "CORPUS=/some where"], cwd=ROOT, capture_output=True, text=True
    )
    assert '--corpus "/some where"' in dry.stdout


def test_demo_on_tables_with_a_protocol_of_their_own(home, tmp_path):
    """For a folder with utterances.tsv, enrolments, and trials, its own split is kept."""
    prepared = home / "demo/tables/speech"
    table = load_utterances(prepared / "utterances.tsv")
    union(table, load_utterances(home / "demo/tables/vox2/utterances.tsv").where("split=dev")).save(
        tmp_path / "x.tsv"
    )
    rows = Table.load(tmp_path / "x.tsv")
    large = set(load_utterances(home / "demo/tables/vox2/utterances.tsv").ids)
    names, splits = rows.texts("utterance"), rows.texts("split")
    cells = {column: rows.texts(column) for column in rows.columns}
    cells["split"] = [
        "train" if name in large else split.replace("eval", "test")
        for name, split in zip(names, splits)
    ]
    Table.build(cells).save(tmp_path / "utterances.tsv")
    for kind in ("enrolments", "trials"):
        for part, other in (("dev", "dev"), ("eval", "test")):
            shutil.copy(prepared / f"{kind}_{part}.tsv", tmp_path / f"{kind}_{other}.tsv")
    speech(str(tmp_path), 0, 0, tmp_path / "none", tmp_path / "out")
    assert (
        load_trials(tmp_path / "out/trials_eval.tsv").counts()
        == load_trials(prepared / "trials_eval.tsv").counts()
    )
    small = load_utterances(tmp_path / "out/utterances.tsv").where("split=train")
    assert 1 < len(small.speakers[1]) <= 40
    assert not set(small.speakers[1]) & set(load_utterances(tmp_path / "out/vox2.tsv").speakers[1])


def test_the_small_part_takes_speakers_of_every_folder(tmp_path):
    rows = ["utterance\tpath\tspeaker\tsplit\tlabel"]
    for folder, count in (
        ("A", 3),
        ("B", 1),
    ):  # by utterances of a speaker alone, all would come from A
        (tmp_path / folder).mkdir()
        for speaker in range(6):
            for number in range(count):
                name = f"{folder}{speaker}-{number}"
                soundfile.write(
                    tmp_path / folder / f"{name}.wav",
                    np.random.default_rng(0).normal(0, 0.1, 8000),
                    16000,
                )
                rows.append(f"{name}\t{folder}/{name}.wav\t{folder}{speaker}\ttrain\tbonafide")
    (tmp_path / "utterances.tsv").write_text("\n".join(rows) + "\n")
    speech(str(tmp_path), 0, 0, tmp_path / "none", tmp_path / "out")
    small = load_utterances(tmp_path / "out/utterances.tsv").speakers[1]
    assert sorted(name[0] for name in small) == ["A", "B", "B", "B"]  # three utterances of either


def test_tiny_trials_have_the_proportion_of_asvspoof2019(tmp_path):
    """The ratio is 33,327 nontarget to 63,882 spoofed trials: two of ten for four spoofed trials,
    evenly chosen. Without spoofed trials, all are kept.
    """
    kinds = ["target"] * 4 + ["nontarget"] * 10 + ["spoof"] * 4
    rows = [f"s\tu{index}\t{kind}" for index, kind in enumerate(kinds)]
    for dropped, kept in (((), {4, 9}), (range(5, 14), {4}), (range(14, 18), set(range(4, 14)))):
        lines = [row for index, row in enumerate(rows) if index not in dropped]
        (tmp_path / "trials.tsv").write_text(
            "speaker\tutterance\tlabel\n" + "\n".join(lines) + "\n"
        )
        found = balanced(load_trials(tmp_path / "trials.tsv")).texts("utterance")
        others = [f"u{index}" for index in [*range(4), *range(14, 18)] if index not in dropped]
        assert sorted(found) == sorted([f"u{index}" for index in kept] + others)
        assert found == sorted(found, key=lambda name: int(name[1:]))


def test_synthetic_speakers_are_distinct(home):
    """The long-term spectra of two halves of each speaker's sentences match best among all
    speakers.
    """
    root = home / "demo/speech/LibriSpeech/synthetic"
    spectra = {0: [], 1: []}
    for speaker in sorted(root.iterdir()):
        files = sorted(speaker.rglob("*.flac"))
        for half in (0, 1):
            waves = np.concatenate([read_audio(path) for path in files[half::2]])
            import torch

            power = (
                torch.stft(
                    torch.from_numpy(waves), 512, window=torch.hann_window(512), return_complex=True
                ).abs()
                ** 2
            )
            spectra[half].append(torch.log(power.mean(dim=1) @ mel_filters() + 1e-9).numpy())
    one, two = (np.stack(spectra[half]) for half in (0, 1))
    distance = np.abs(one[:, None] - two[None]).mean(axis=2)
    assert (distance.argmin(axis=1) == np.arange(len(one))).all()


def test_rendering_is_reproducible(home, tmp_path):
    again = synthetic.render(tmp_path, 10)
    path = "synthetic/sasv0003/0/sasv0003-0-0001.flac"
    np.testing.assert_array_equal(
        read_audio(again / path), read_audio(home / "demo/speech/LibriSpeech" / path)
    )


def test_readme_has_both_commands_first():
    assert BLOCKS[0] == ("bash", "make demo\nmake test\n")


@pytest.mark.parametrize(
    "language, code", BLOCKS, ids=[f"block{index}" for index in range(len(BLOCKS))]
)
def test_readme_blocks_run(language, code, home, monkeypatch, capsys):
    monkeypatch.chdir(home)
    if language == "python":
        exec(compile(code, "README.md", "exec"), {})
        return
    for line in code.replace("\\\n", " ").splitlines():
        if line.startswith("make "):
            words = ["make", "-n", *line.split()[1:]]
            assert subprocess.run(words, cwd=ROOT, stdout=subprocess.DEVNULL).returncode == 0
        elif line and not line.startswith("#"):
            expanded = subprocess.run(
                ["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, text=True
            )
            command, *words = expanded.stdout.split("\0")[:-1]
            assert command == "sasv"
            assert cli.main(words) == 0, f"{line}\n{capsys.readouterr().err[-2000:]}"
