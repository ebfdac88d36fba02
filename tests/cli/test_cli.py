"""The command line: help without torch, options from flags and YAML, and one line for every
mistake.
"""

import json
import resource
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from functools import partial

import numpy as np
import pytest
import soundfile

from conftest import shared
from forked import Forked
from sasv import cli
from sasv.audio import write_audio
from sasv.cli.parser import helps_of
from sasv.commands import COMMANDS, SynthesizeOptions, function_name, synthesize
from sasv.core import files
from sasv.core.errors import MissingExtra, SasvError
from sasv.core.files import locked
from sasv.encoders import ENCODERS
from sasv.tables import load_trials, load_utterances
from sasv.training.recipes import recipes


def test_help_and_version_import_neither_torch_nor_numpy():
    code = "import sys; from sasv.cli import main; main(['--help']); main(['--version'])\n"
    code += "assert not {'torch', 'numpy', 'jsonargparse'} & set(sys.modules), 'imported too much'"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for name in COMMANDS:
        assert name in result.stdout


def test_light_commands_do_not_import_torch():
    code = "import sys, sasv, sasv.tables, sasv.metrics, sasv.scores, sasv.corpora.base\n"
    code += "from sasv.commands import prepare, metrics\n"
    code += "assert 'torch' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help_for_every_option(name, capsys):
    assert cli.main([name, "--help"]) == 0
    text = capsys.readouterr().out
    kind = getattr(__import__("sasv.commands", fromlist=[name]), COMMANDS[name].options)
    names = {entry.name for entry in fields(kind)}
    for option in names:
        assert option in text.replace("-", "_"), option
    assert set(helps_of(kind)) == names
    assert callable(getattr(__import__("sasv.commands", fromlist=[name]), function_name(name)))


def test_flags_yaml_and_dashes_give_the_same_options(tmp_path):
    words = "--utterances u --enrolments e --trials t --out o --no-plot --max-seconds 9"
    flags = cli.parse("evaluate", words.split())
    (tmp_path / "c.yaml").write_text(
        "utterances: u\nenrolments: e\ntrials: t\nout: o\nplot: false\nmax_seconds: 9\n"
    )
    assert cli.parse("evaluate", ["--config", str(tmp_path / "c.yaml")]) == flags
    assert (flags.plot, flags.max_seconds) == (False, 9.0)
    override = cli.parse("evaluate", ["--config", str(tmp_path / "c.yaml"), "--out=other"])
    assert override.out == "other"
    assert cli.parse("metrics", ["s.tsv", "--json"]).json is True
    assert cli.parse("verify", ["a", "b", "c", "--model", "m"]).recordings == ["a", "b", "c"]


@pytest.mark.slow
@pytest.mark.parametrize("encoder", list(ENCODERS))
@pytest.mark.parametrize("name", list(recipes()))
def test_the_command_at_the_head_of_a_recipe_parses_for_every_encoder(name, encoder):
    text = recipes()[name].read_text().replace("\\\n#", " ")
    commands = [
        line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#   sasv ")
    ]
    own = [shlex.split(command)[1:] for command in commands]
    assert own[-1][:2] == ["train", name]
    for words in own:
        cli.parse(words[0], words[1:])
    options = cli.parse("train", [*own[-1][1:], "--encoder", encoder])
    assert options.encoder == encoder
    assert (options.spoof_pairs > 0) == (options.loss in ("sasv", "anchored"))
    assert (options.batches_per_epoch == "paper") == (
        not name.endswith(("small", "tiny", "anchored"))
    )


def test_recipes_parse_and_unknown_keys_are_errors(tmp_path, capsys):
    for name, path in recipes().items():
        options = cli.parse("train", [name, "--utterances", "u", "--out", "o", "--epochs", "7"])
        assert options.epochs == 7
        assert path.read_text().startswith("#")
    assert cli.main(["train", "stage9"]) == 2
    assert (
        "the recipes are: large-margin, stage1-small, stage1-tiny, stage1-voxceleb2, stage2-"
        in capsys.readouterr().err
    )
    (tmp_path / "bad.yaml").write_text("utterances: u\nout: o\nlearning_rate: 3\n")
    assert cli.main(["train", str(tmp_path / "bad.yaml")]) == 2
    assert "learning_rate" in capsys.readouterr().err


def test_print_config(capsys):
    assert (
        cli.main(["train", "stage1-small", "--utterances", "u", "--out", "o", "--print-config"])
        == 0
    )
    text = capsys.readouterr().out
    assert "channels: 256" in text and "epochs: 30" in text


@pytest.mark.parametrize(
    "words, message",
    [
        (["nonsense"], "unknown command 'nonsense'"),
        (["metrcs"], "did you mean metrics"),
        (["metrics"], "required: scores"),
        (["train"], "required: --out, --utterances"),
        (["reproduce", "--rows", "x"], '--rows is ["x"]; it must be a list, each item a whole'),
        (["reproduce", "--rows", "12"], "--rows is 12; it must be from 1 to 11"),
        (["metrics", "x.tsv", "--task", "x"], "it must be one of auto, sasv, cm"),
        (["metrics", "x.tsv", "--bogus", "1"], "--bogus"),
        (["metrics", "nope.tsv"], "nope.tsv: no such file"),
        (
            ["embed", "u.tsv", "--out", "o", "--model", "m", "--batch-seconds", "many"],
            "--batch-seconds is many; it must be a number, at least 0",
        ),
        (["info", "nope.safetensors"], "no such checkpoint"),
        (["prepare", "asvspoof2091", ".", "--out", "../nowhere"], "did you mean asvspoof2019"),
    ],
)
def test_mistakes_are_reported_in_one_line(words, message, capsys):
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert error.startswith("sasv")


@pytest.fixture
def recordings(tmp_path, voice):
    folder = tmp_path / "with space and ü"
    for index in range(4):
        write_audio(folder / f"{index}.wav", voice(24000, index))
    return [str(folder / f"{index}.wav") for index in range(4)]


def test_verify(trained, recordings, capsys, tmp_path, voice):
    model = str(trained / "model.safetensors")
    assert cli.main(["verify", *recordings, "--model", model, "--min-speech", "0", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["decision"] == ("accept" if result["score"] >= result["threshold"] else "reject")
    assert result["enrolment"] == recordings[:3]
    assert (
        cli.main(
            ["verify", *recordings, "--model", model, "--min-speech", "0", "--threshold", "-1"]
        )
        == 0
    )
    assert capsys.readouterr().out.startswith("accept: score")
    assert (
        cli.main(
            ["verify", *recordings, "--model", model, "--min-speech", "0", "--threshold", "1.5"]
        )
        == 0
    )
    assert capsys.readouterr().out.startswith("reject: score")
    soundfile.write(tmp_path / "stereo.wav", np.stack([voice(16000)] * 2, axis=1), 8000)
    assert (
        cli.main(
            [
                "verify",
                recordings[0],
                str(tmp_path / "stereo.wav"),
                "--model",
                model,
                "--min-speech",
                "0",
            ]
        )
        == 0
    )
    assert cli.main(["verify", recordings[0], "--model", model]) == 2
    assert "at least two recordings" in capsys.readouterr().err


def test_verify_names_the_bad_file(trained, recordings, capsys, tmp_path):
    model = str(trained / "model.safetensors")
    soundfile.write(tmp_path / "silent.wav", np.zeros(32000), 16000)
    for name, message in (("silent.wav", "silent"), ("gone.wav", "no such file")):
        assert cli.main(["verify", *recordings, str(tmp_path / name), "--model", model]) == 2
        error = capsys.readouterr().err
        assert str(tmp_path / name) in error and message in error and error.count("\n") == 1


def test_verify_without_a_threshold(trained, recordings, tmp_path, capsys):
    assert cli.main(["convert", str(trained / "model.safetensors"), str(tmp_path / "m.model")]) == 0
    assert "threshold, classes and licence are not in it" in capsys.readouterr().err
    assert cli.main(["verify", *recordings, "--model", str(tmp_path / "m.model")]) == 2
    assert "the model has no threshold; give --threshold" in capsys.readouterr().err


@pytest.mark.slow
def test_synthesize(corpus, tmp_path):
    out = tmp_path / "copies"
    options = SynthesizeOptions(
        str(corpus / "utterances.tsv"),
        str(out),
        ["griffin-lim", "world"],
        trials=str(corpus / "trials_dev.tsv"),
    )
    copies = synthesize(options)
    assert len(copies) == 8 * 2
    table = load_utterances(out / "utterances.tsv")
    assert len(table) == len(load_utterances(corpus / "utterances.tsv")) + 16
    counts = load_trials(out / "trials.tsv").counts()
    assert counts == {"target": 8, "nontarget": 8, "spoof": 8 + 16}
    row = table.rows["s6-2~world"]
    copy, _ = soundfile.read(table.path(row))
    original, _ = soundfile.read(corpus / "audio" / "s6-2.wav")
    assert len(copy) == len(original)
    level = 10 * np.log10(np.square(copy).mean() / np.square(original).mean())
    assert abs(level) < 1
    assert np.abs(copy - original).max() > 0.01
    assert (table.table.text("attack", row), table.table.text("label", row)) == ("world", "spoof")
    before = (out / "audio" / "world" / "s6-2.flac").stat().st_mtime_ns
    synthesize(options)
    assert (out / "audio" / "world" / "s6-2.flac").stat().st_mtime_ns == before
    (out / "audio" / "world" / "s6-2.flac").unlink()
    assert len(synthesize(replace(options, verify=True))) == 16  # lost copies are made again


@pytest.fixture
def bona_fide(corpus, tmp_path):
    """The tiny corpus with one corrupt file."""
    from conftest import make_corpus

    own = make_corpus(tmp_path / "own", speakers=7, utterances=3)
    (own / "audio" / "s3-1.wav").write_bytes(b"broken")
    return own


@pytest.mark.long
@pytest.mark.slow
def test_shards_workers_and_a_killed_run_give_the_same_copies(bona_fide, tmp_path):
    """Compares one process with three shards, one of which is killed and restarted, on input with a
    corrupt file.
    """
    words = ["synthesize", bona_fide / "utterances.tsv", "--where", "label=bonafide"]
    words += ["--vocoders", "[griffin-lim,source-filter]", "--choose", "one"]
    alone = [*words, "--out", tmp_path / "whole"]
    whole = Forked(alone, tmp_path / "said")
    assert whole.end() == [2]
    assert "1 utterances could not be copied" in whole.said.splitlines()[-1]
    assert "s3-1.wav" in whole.said.splitlines()[-1]
    sharded = [*words, "--out", tmp_path / "sharded", "--shard"]
    workers = ["--num-workers", 2]
    killed = Forked([*sharded, "1/3", *workers], tmp_path / "said-1")
    while killed.running and not list((tmp_path / "sharded").rglob("*.flac")):
        time.sleep(0.005)
    killed.send(signal.SIGKILL)
    killed.end()
    said = []
    for shard, status, more in (("2/3", 0, []), ("3/3", 0, []), ("1/3", 2, workers)):
        run = Forked([*sharded, shard, *more], tmp_path / "said")
        assert run.end() == [status], run.said
        said.append(run.said)
    assert "the last shard to finish writes the table" in said[0]
    tables = [load_utterances(tmp_path / run / "utterances.tsv") for run in ("whole", "sharded")]
    for column in ("utterance", "attack", "sha256", "source"):
        assert tables[0].table.texts(column) == tables[1].table.texts(column)
    assert {"griffin-lim", "source-filter"} <= set(tables[0].attack_texts)
    assert len(tables[0].where("attack=griffin-lim,source-filter")) == 20
    # Nothing was fixed, so it is reported again.
    assert Forked(alone, tmp_path / "said").end() == [2]


def test_a_second_run_on_the_same_copies_is_refused(bona_fide, tmp_path):
    options = SynthesizeOptions(
        str(bona_fide / "utterances.tsv"),
        str(tmp_path / "o"),
        ["source-filter"],
        where="speaker=s0;label=bonafide",
    )
    assert len(synthesize(options)) == 3
    (part,) = (tmp_path / "o").glob("parts-*/1-of-1")
    with locked(part), pytest.raises(SasvError, match="another run is writing here"):
        synthesize(options)
    copy = next((tmp_path / "o").rglob("*.flac"))
    write_audio(copy, np.zeros(100, np.float32))
    with pytest.raises(SasvError, match="changed since it was written"):
        synthesize(replace(options, verify=True))


@pytest.mark.speech
@pytest.mark.parametrize("vocoder", ["griffin-lim", "source-filter", "world"])
def test_vocoders_keep_length_and_level_of_real_speech(vocoder):
    from sasv.audio import read_audio
    from sasv.vocoders import make_vocoder

    wave = read_audio(shared("speech", "LibriSpeech/test-other/1688/142285/1688-142285-0003.flac"))
    copy = make_vocoder(vocoder)(wave, seed=1)
    assert copy.shape == wave.shape
    assert abs(20 * np.log10(copy.std() / wave.std())) < 1
    assert np.abs(copy).max() < 1
    assert np.corrcoef(copy, wave)[0, 1] < 0.9  # another waveform
    np.testing.assert_array_equal(copy, make_vocoder(vocoder)(wave, seed=1))


def test_missing_extra_is_reported_with_the_install_command(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pyworld", None)
    from sasv.vocoders import make_vocoder

    with pytest.raises(MissingExtra, match=r'pip install "sasv\[vocoders\]"'):
        make_vocoder("world")
    monkeypatch.setitem(sys.modules, "av", None)
    from sasv.audio import read_audio

    (tmp_path / "x.m4a").write_bytes(b"\x00\x00\x00\x20ftypM4A \x00\x00\x00\x00M4A mp42")
    with pytest.raises(SasvError, match=r'pip install "sasv\[m4a\]"'):
        read_audio(tmp_path / "x.m4a")


def limit_files(size):
    """Limit the size of the files that this process may write, in bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.slow
def test_failed_write_on_a_full_disk_keeps_the_old_file(trained, corpus, tmp_path):
    """A limit on the size of files replaces a full disk: the error occurs at the same place in the
    code, with another number.
    """
    model = trained / "model.safetensors"
    out = tmp_path / "out"
    out.mkdir()
    old = out / "m.model"
    old.write_bytes(b"old")
    words = ["convert", model, old, "--force"]
    run = Forked(words, tmp_path / "said", before=partial(limit_files, 4096))
    assert run.end() == [2]
    assert run.said.count("\n") == 1
    assert "m.model: cannot write" in run.said
    assert old.read_bytes() == b"old"
    assert [path.name for path in out.iterdir()] == ["m.model"]
    for words in (
        ["convert", model, out / "m.safetensors"],
        ["embed", corpus / "utterances.tsv", "--model", model, "--out", out / "embeddings"],
    ):
        run = Forked(words, tmp_path / "said", before=partial(limit_files, 2048))
        assert run.end() == [2], run.said
        assert "cannot write" in run.said.splitlines()[-1]
        assert "Traceback" not in run.said


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
    )
    if mount.returncode != 0:
        pytest.skip(f"needs the right to mount a tmpfs: {mount.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_a_disk_that_is_really_full(corpus, tiny_disk, tmp_path, voice):
    with pytest.raises(SasvError, match=r"x\.flac: cannot write: the disk is full"):
        write_audio(tiny_disk / "x.flac", voice(160000))
    assert not list(tiny_disk.iterdir())
    words = ["synthesize", corpus / "utterances.tsv", "--where", "label=bonafide"]
    run = Forked([*words, "--out", tiny_disk, "--vocoders", "[world]"], tmp_path / "said")
    assert run.end() == [2]
    assert "the disk is full" in run.said.splitlines()[-1]
    copies = sorted(tiny_disk.rglob("*.flac"))
    assert copies
    for path in copies:  # what was written before is complete
        assert len(soundfile.read(path)[0]) == 19200


@pytest.mark.slow
def test_full_disk_is_named_in_the_error(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(SasvError, match=r"x\.txt: cannot write: the disk is full; free some space"):
        files.write_text(tmp_path / "x.txt", "text")
    assert not list(tmp_path.iterdir())
