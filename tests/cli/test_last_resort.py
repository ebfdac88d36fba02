"""Any failure gives one line on standard error, and an exit status for its kind."""

import errno
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from sasv import cli
from sasv.audio import write_audio
from sasv.cli.program import CLOSED_PIPE, FAILED, INTERRUPTED, MISTAKE
from sasv.commands import COMMANDS, Command


def sasv(*words, **options):
    return subprocess.run(
        [sys.executable, "-m", "sasv", *map(os.fsencode, words)], capture_output=True, **options
    )


@pytest.fixture
def raising(monkeypatch):
    """Register a command ``boom`` that raises a given exception."""
    from dataclasses import dataclass

    @dataclass
    class BoomOptions:
        """No options."""

    module = types.ModuleType("sasv.commands._boom")
    module.BoomOptions = BoomOptions
    monkeypatch.setitem(sys.modules, "sasv.commands._boom", module)
    monkeypatch.setitem(COMMANDS, "boom", Command("_boom", "BoomOptions", "fails"))

    def install(error):
        def boom(options):
            raise error

        module.boom = boom

    return install


def deep(depth=0):
    return deep(depth + 1)


UNFORESEEN = [
    (PermissionError(errno.EACCES, "Permission denied", "/root/x"), "/root/x: Permission denied"),
    (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
    (OSError(errno.ENAMETOOLONG, "File name too long", "n" * 300), "the name is too long"),
    (NotADirectoryError(errno.ENOTDIR, "Not a directory", "a/b"), "a/b: Not a directory"),
    (UnicodeEncodeError("utf-8", "\udce9", 0, 1, "surrogates not allowed"), "UnicodeEncodeError"),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "UnicodeDecodeError"),
    (RecursionError("maximum recursion depth exceeded"), "RecursionError: maximum recursion"),
    (MemoryError(), "not enough memory"),
    (OSError(errno.ENOMEM, "Cannot allocate memory"), "not enough memory"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "not enough memory"),
    (RuntimeError("can't start new thread"), "no thread can be started: the memory or"),
    (RuntimeError("CUDA error:\n out of\n cards"), "RuntimeError: CUDA error: out of cards"),
    (__import__("zlib").error("Error -3"), "error: Error -3"),
    (KeyError("speaker"), "KeyError: 'speaker'"),
    (AssertionError(), "AssertionError"),
]


@pytest.mark.parametrize("error, message", UNFORESEEN, ids=lambda value: type(value).__name__)
def test_unexpected_errors_are_reported_in_one_line(raising, capsys, monkeypatch, error, message):
    monkeypatch.delenv("SASV_DEBUG", raising=False)
    raising(error)
    assert cli.main(["boom"]) == FAILED
    said = capsys.readouterr().err
    assert said.startswith("sasv boom: ") and said.count("\n") == 1
    assert message in said and "set SASV_DEBUG=1 to see where" in said
    monkeypatch.setenv("SASV_DEBUG", "1")
    assert cli.main(["boom"]) == FAILED
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(errno.EPIPE, "Broken pipe")])
def test_a_closed_pipe_inside_a_command_is_silent(raising, capfd, error):
    raising(error)
    saved = os.dup(1)
    try:
        assert cli.main(["boom"]) == CLOSED_PIPE
    finally:
        os.dup2(saved, 1)
        os.close(saved)
    assert capfd.readouterr().err == ""


def test_an_interruption_says_whether_the_command_resumes(raising, capsys, monkeypatch):
    raising(KeyboardInterrupt())
    assert cli.main(["boom"]) == INTERRUPTED
    assert capsys.readouterr().err == "sasv boom: interrupted\n"
    monkeypatch.setitem(COMMANDS, "boom", COMMANDS["boom"]._replace(resumable=True))
    assert cli.main(["boom"]) == INTERRUPTED
    assert "run the same command again to resume" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--help"], ["models", "--json"], ["metrics", "--help"]])
@pytest.mark.parametrize("stdout", ["| true", "> /dev/full", ">&-"])
def test_closed_or_full_standard_output(words, stdout):
    if "full" in stdout and not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    command = f"set -o pipefail; {sys.executable} -m sasv {' '.join(words)} {stdout}"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert "Traceback" not in result.stderr and "Exception" not in result.stderr
    if "|" in stdout:
        assert result.returncode in (0, CLOSED_PIPE) and result.stderr == ""
    else:
        assert result.returncode in (FAILED, MISTAKE)
        assert result.stderr.count("\n") == 1 and "standard output" in result.stderr


def test_closed_standard_error_is_tolerated():
    command = f"{sys.executable} -m sasv models 2>&- | head -c 20"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert result.stdout.startswith("name")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, locale",
    [
        (b"caf\xe9.tsv", {}),
        (b"caf\xe9.tsv", {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
        ("café ü.tsv".encode(), {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
    ],
)
def test_names_that_the_locale_cannot_show(tmp_path, name, locale):
    path = os.path.join(os.fsencode(tmp_path), name)
    result = sasv("metrics", path, env=os.environ | locale)
    assert result.returncode == MISTAKE
    assert result.stderr.count(b"\n") == 1 and b"no such file" in result.stderr
    with open(path, "wb") as stream:
        stream.write(b"speaker\tutterance\tlabel\tscore\n")
        for number in range(4):
            stream.write(
                b"s\tu%d\t%s\t%d\n" % (number, (b"target", b"nontarget")[number % 2], number)
            )
    result = sasv("metrics", path, "--json", env=os.environ | locale)
    assert (result.returncode, result.stderr) == (0, b"")


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

WRITTEN_IN_ASCII = """
import os, sys
from sasv.audio import write_audio
from sasv.commands import *
import numpy as np
out = sys.argv[1]
rng = np.random.default_rng(0)
write_audio(out + "/speech/s/x.wav", 0.1 * rng.standard_normal(8000).astype("float32"))
name = os.fsdecode(b"\\xc3\\xa9\\xe6\\x97\\xa5.wav")
os.rename(out + "/speech/s/x.wav", out + "/speech/s/" + name)
prepare(PrepareOptions("folder", out + "/speech", out + "/tables"))
made = SynthesizeOptions(out + "/tables/utterances.tsv", out + "/copies", ["8khz"], num_workers=0)
synthesize(made)
"""


@pytest.mark.slow
def test_outputs_are_written_in_an_ascii_locale(tmp_path):
    place = tmp_path / "ü"
    place.mkdir()
    result = subprocess.run(
        [sys.executable, "-c", WRITTEN_IN_ASCII, place],
        env=os.environ | ASCII,
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert (place / "copies/audio/8khz/é日.flac").is_file()
    assert "é日.flac" in (place / "copies/utterances.tsv").read_text("utf-8")


def test_recordings_with_names_that_are_not_utf8_give_one_line_or_a_verdict(
    tmp_path, voice, capsys
):
    write_audio(tmp_path / "a.wav", voice(32000))
    path = os.fsdecode(os.path.join(os.fsencode(tmp_path), b"caf\xe9.wav"))
    (tmp_path / "a.wav").rename(path)
    status = cli.main(["verify", path, path, "--json"])
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert status == 0 or said.count("\n") == 1, said


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment, words, message",
    [
        ({"WORLD_SIZE": "x"}, ["embed", "u.tsv", "--out", "o"], ""),
        ({"WORLD_SIZE": "2"}, ["embed", "u.tsv", "--out", "o"], ""),
        ({"RANK": "5"}, ["embed", "u.tsv", "--out", "o"], "u.tsv: no such file"),
        ({}, ["embed", "u.tsv", "--out", "o", "--device", "gpu"], "gpu"),
        ({}, ["embed", "u.tsv", "--out", "o", "--device", "mps"], "no usable Apple GPU"),
        ({}, ["embed", "u.tsv", "--out", "o", "--device", "meta"], "does not support this device"),
        ({}, ["embed", "u.tsv", "--out", "o", "--device", "cuda:99"], "cuda:99"),
    ],
)
def test_invalid_environment_or_device_is_reported_in_one_line(
    tmp_path, monkeypatch, capsys, environment, words, message
):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == MISTAKE
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and message in said
