"""Files are written atomically and keep their permissions; JSON of earlier runs; locks."""

import gzip
import json
import os
import signal
import stat
import subprocess
import sys

import pytest

from sasv.core import files
from sasv.core.errors import SasvError
from sasv.core.files import (
    atomic_path,
    locked,
    read_bytes,
    read_json,
    temporary_path,
    write_json,
    write_text,
)


def test_a_replaced_file_keeps_its_permissions(tmp_path):
    path = tmp_path / "secret.txt"
    path.write_text("old")
    path.chmod(0o600)
    write_text(path, "new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret.txt"]


def test_a_link_is_followed_and_stays_a_link(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "real.txt").write_text("old")
    link = tmp_path / "link.txt"
    link.symlink_to("there/real.txt")
    write_text(link, "new")
    assert link.is_symlink()
    assert (tmp_path / "there" / "real.txt").read_text() == "new"


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_pipes_folders_and_devices_are_never_replaced(tmp_path, kind):
    path = tmp_path / "x"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path = tmp_path.__class__("/dev/null")
    before = path.stat().st_mode
    with pytest.raises(SasvError, match="is a folder|is a device or a pipe"):
        write_text(path, "x")
    assert path.stat().st_mode == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with a name are POSIX")
def test_pipes_are_read_without_waiting_and_devices_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert read_bytes(tmp_path / "pipe") == b""
    reader, writer = os.pipe()
    os.write(writer, b"1 2 3\n")
    os.close(writer)
    assert read_bytes(f"/dev/fd/{reader}") == b"1 2 3\n"
    os.close(reader)
    with pytest.raises(SasvError, match="/dev/zero: is a device, not a file"):
        read_bytes("/dev/zero")


def test_gzip_bombs_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "GUNZIPPED_BYTES", 1000)
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(bytes(1000)) + gzip.compress(b"x"))
    assert len(read_bytes(path)) == 1001
    path.write_bytes(gzip.compress(bytes(1_000_000)))
    with pytest.raises(SasvError, match="decompresses to more than .* too large for a table"):
        read_bytes(path)
    path.write_bytes(gzip.compress(b"speaker")[:-6])
    with pytest.raises(SasvError, match="damaged gzip file"):
        read_bytes(path)


def test_long_names(tmp_path):
    name = "ü" * 120 + ".json"
    write_json(tmp_path / name, 1)
    assert read_json(tmp_path / name, kind=int) == 1
    with pytest.raises(SasvError, match="the name is too long"):
        write_text(tmp_path / ("n" * 300), "x")
    with pytest.raises(SasvError, match="the name is too long"):
        read_bytes(tmp_path / ("n" * 300))


def test_a_name_that_is_not_utf8(tmp_path):
    name = os.fsdecode(b"caf\xe9.wav")
    write_json(tmp_path / "a.json", {"path": name})
    assert read_json(tmp_path / "a.json") == {"path": name}
    with pytest.raises(SasvError, match=r"caf\\xe9.wav' is not UTF-8"):
        write_text(tmp_path / "a.tsv", f"utterance\tpath\na\t{name}\n")


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"signature": "a', "invalid JSON"),
        ("", "invalid JSON"),
        ("[" * 100_000, "invalid JSON"),
        ("[1, 2]", "contains no object"),
        ("null", "contains no object"),
        ("{}", "has no 'signature'"),
        ('{"signature": 3}', "'signature' is not of type str"),
        ('{"signature": "x", "crops": true}', "'crops' is not of type int"),
        ('{"signature": "x", "crops": NaN}', "invalid JSON .NaN is not a number"),
        ('{"signature": "x", "crops": 1e999}', "invalid JSON .1e999 is out of range"),
        ('{"signature": "x", "crops": 1, "model": 3}', "'model' is not of type str"),
    ],
)
def test_json_of_an_earlier_run_is_checked(tmp_path, text, message):
    path = tmp_path / "embeddings.json"
    path.write_text(text)
    with pytest.raises(SasvError, match=message) as caught:
        read_json(path, {"signature": str, "crops": int}, {"model": str})
    assert str(path) in str(caught.value)
    assert "remove it and run the same command again" in str(caught.value)
    path.write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(SasvError, match="invalid JSON"):
        read_json(path)
    path.write_text(json.dumps({"signature": "x", "crops": 2}))
    assert read_json(path, {"signature": str, "crops": int})["crops"] == 2


def test_temporaries_of_dead_processes_are_cleared_when_the_folder_is_locked(tmp_path, monkeypatch):
    child = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    )
    with monkeypatch.context() as patched:
        patched.setattr(os, "getpid", lambda: int(child.stdout))
        dead = temporary_path(tmp_path / "model.safetensors")
    with monkeypatch.context() as patched:
        patched.setattr(os, "getpid", lambda: os.getppid())
        alive = temporary_path(tmp_path / "model.safetensors")
    elsewhere = tmp_path / dead.name.replace(files._machine(), "00000000")
    for path in (dead, alive, elsewhere):
        path.write_text("x")
    (tmp_path / ".mine.part").write_text("x")
    with locked(tmp_path):
        left = {path.name for path in tmp_path.iterdir()}
    assert left == {alive.name, elsewhere.name, ".mine.part", ".lock"}


def test_a_lock_neither_truncates_nor_follows_a_link(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    (tmp_path / ".lock").symlink_to("mine.txt")
    with pytest.raises(SasvError, match="is a link"), locked(tmp_path):
        pass
    assert (tmp_path / "mine.txt").read_text() == "precious"
    (tmp_path / ".lock").unlink()
    (tmp_path / ".lock").write_text("text")
    with locked(tmp_path):
        pass
    assert (tmp_path / ".lock").read_text() == "text"


def test_another_run_holds_the_lock(tmp_path):
    with (
        locked(tmp_path),
        pytest.raises(SasvError, match="another run is writing here"),
        locked(tmp_path),
    ):
        pass
    with locked(tmp_path):
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_worker_does_not_keep_the_lock_of_its_killed_parent(tmp_path):
    code = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from sasv.core.files import locked\n"
        "with locked(Path(sys.argv[1])):\n"
        "    worker = os.fork()\n"
        "    if not worker:\n"
        "        time.sleep(30)\n"
        "        os._exit(0)\n"
        "    time.sleep(0.2)\n"
        "    print(worker, flush=True)\n"
        "    time.sleep(30)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    worker = int(parent.stdout.readline())
    try:
        with pytest.raises(SasvError, match="another run"), locked(tmp_path):
            pass
        parent.kill()
        parent.wait()
        with locked(tmp_path):  # at once, although the worker is still running
            os.kill(worker, 0)
    finally:
        os.kill(worker, signal.SIGKILL)
        parent.stdout.close()


def test_folder_that_cannot_be_made_is_reported_in_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(SasvError, match="file/run: cannot write to this folder"),
        locked(tmp_path / "file" / "run"),
    ):
        pass


def test_the_package_imports_without_fcntl():
    """As on Windows: every module of the lower rooms can be imported, and a lock works without
    it.
    """
    code = (
        "import sys\n"
        "for name in ('fcntl', 'resource', 'pwd', 'termios'):\n"
        "    sys.modules[name] = None\n"
        "import sasv.core.files, sasv.core.progress, sasv.cli, sasv.tables, sasv.audio, "
        "sasv.scores, sasv.corpora\n"
        "import sasv.synthesis, sasv.weights\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_failed_write_leaves_no_file(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "x.txt") as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_first_write_of_a_process_removes_temporaries_of_killed_ones(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from sasv.core.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "scores.tsv")], check=False)
    (tmp_path / ".mine.part.tsv").write_text("of the user")
    assert len(list(tmp_path.iterdir())) == 2
    write_text(tmp_path / "other.txt", "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mine.part.tsv", "other.txt"]


def test_as_a_library_sasv_is_silent(tmp_path):
    code = (
        "import logging\n"
        "from sasv.core.progress import Progress\n"
        "with Progress('copies', 2) as progress:\n"
        "    progress.add(2)\n"
        "logging.getLogger('sasv').warning('a warning')\n"
        "logging.basicConfig(level='INFO')\n"
        "logging.getLogger('sasv').info('now shown')\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("", "INFO:sasv:now shown\n")


@pytest.mark.parametrize("name", ["a.parquet", "a.ZIP", "a.tsv.xz"])
def test_text_is_not_written_under_the_name_of_another_format(tmp_path, name):
    with pytest.raises(SasvError, match="choose a name that ends in"):
        files.write_text(tmp_path / name, "a\n")
    assert not (tmp_path / name).exists()
