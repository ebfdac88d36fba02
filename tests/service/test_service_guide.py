"""The guide to the service, whose commands are run unchanged, and the files for systemd and
containers.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path

import pytest

from sasv.cli import main
from sasv.cli.parser import parse_all
from sasv.client import Client, ServiceError
from serving import speech

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "guides" / "service.md").read_text()
DEPLOY = ROOT / "deploy"


def blocks(kind):
    """Return the blocks of code of a kind."""
    return re.findall(rf"^```{kind}\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)


@pytest.mark.long
def test_the_guide_runs(model_path, tmp_path, monkeypatch, capsys):
    """Commands, curl, and Python; finally a signal, after which accepted requests are finished."""
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    monkeypatch.chdir(tmp_path)
    shutil.copy(model_path, "model.onnx")
    for name in ("ann1", "ann2", "test"):
        Path(f"{name}.wav").write_bytes(speech("ann", len(name)))
    start, ask, *others = blocks("bash")
    *lines, serve = start.strip().splitlines()
    for line in lines:
        assert main(shlex.split(line)[1:]) == 0
    key = json.loads("{" + capsys.readouterr().out.rpartition("{")[2])["api_key"]
    command = [sys.executable, "-m", "sasv", *shlex.split(serve)[1:], "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        line = process.stderr.readline()
        url = line.split()[-1]
        assert url.startswith("http://127.0.0.1:"), line
        drain = threading.Thread(target=process.stderr.read)
        drain.start()
        monkeypatch.setenv("SASV_API_KEY", key)
        text = ask.replace("http://127.0.0.1:8000", url)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text.replace("}'\n", "}'; echo\n")],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert '"outcome": "accept"' in done.stdout and '"deleted":' in done.stdout
        problems = re.findall(r'"code": "(\w+)", "request_id"', done.stdout)
        assert problems == ["not_supported"]  # the toy model has no spoof score
        for code in blocks("python"):
            exec(code.replace("http://127.0.0.1:8000", url), {})
        client = Client(url, attempts=1)
        client.create_speaker("last")
        client.enrol("last", speech("ann"))
        answers = []
        recording = speech("ann", 3, 100.0)  # takes a while
        asking = threading.Thread(target=lambda: answers.append(client.verify("last", recording)))
        asking.start()
        time.sleep(0.3)
        os.kill(process.pid, signal.SIGTERM)
        asking.join(30)
        assert process.wait(30) == 0
        drain.join()
        assert answers[0]["outcome"] == "accept"
        with pytest.raises(ServiceError):
            client.about()
    assert not others


def test_files_for_systemd_and_containers():
    """Their commands have valid options, and systemd-analyze, if it is installed, finds no
    fault.
    """
    unit = (DEPLOY / "sasv.service").read_text()
    command = re.search(r"^ExecStart=\S+/sasv serve (.*)$", unit, re.MULTILINE)[1]
    parse_all("serve", shlex.split(command))
    container = (DEPLOY / "Containerfile").read_text()
    words = json.loads(re.search(r'^CMD (\["sasv".*\])$', container, re.MULTILINE)[1])
    assert words[:2] == ["sasv", "serve"]
    parse_all("serve", words[2:])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = re.findall(r'"/source\[(.*)\]"', container)
    assert len(extras) == 2
    assert set(",".join(extras).split(",")) <= set(project["optional-dependencies"])
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    needed = {"src", "constraints.txt", "pyproject.toml", project["readme"]}
    kept = {line[1:] for line in ignored if line.startswith("!")}
    assert "*" in ignored and kept == needed | set(project["license-files"])
    if shutil.which("systemd-analyze"):
        checked = ["systemd-analyze", "verify", str(DEPLOY / "sasv.service")]
        found = subprocess.run(checked, capture_output=True, text=True).stderr
        lines = [line for line in found.splitlines() if "sasv.service" in line]
        assert all("/opt/sasv/bin/sasv is not executable" in line for line in lines), found


def test_keys_by_command(tmp_path, capsys):
    store, key = str(tmp_path / "store.db"), str(tmp_path / "key")
    assert main(["store", "new-key", key]) == 0
    assert main(["keys", "list", store, "--key", key]) == 2  # there is no store yet
    assert main(["store", "create", store, "--key", key]) == 0
    assert main(["serve", "--store", store, "--key", key]) == 2
    assert "contains no API key" in capsys.readouterr().err
    words = ["keys", "create", store, "--key", key, "--name", "shop", "--scopes", "read,metrics"]
    assert main(words) == 0
    made = json.loads(capsys.readouterr().out)
    secret = made["api_key"].split("_", 2)[2]  # which may contain "_" itself
    assert all(secret.encode() not in path.read_bytes() for path in tmp_path.iterdir())
    assert main(["keys", "list", store, "--key", key]) == 0
    shown = capsys.readouterr().out
    assert "read/metrics" in shown and secret not in shown
    assert main(["keys", "revoke", store, "--key", key, "--id", made["id"]]) == 0
    assert main(["serve", "--store", store, "--key", key]) == 2  # no key is left
    for wrong in (
        ["keys", "create", store, "--key", key],
        ["keys", "create", store, "--key", key, "--name", "a b"],
        ["keys", "create", store, "--key", key, "--name", "a", "--scopes", "all"],
        ["keys", "revoke", store, "--key", key, "--id", "none"],
        ["serve", "--insecure-demo", "--host", "0.0.0.0"],
        ["serve", "--insecure-demo", "--tls-key", key],
        ["serve"],
    ):
        assert main(wrong) == 2, wrong
    assert "Traceback" not in capsys.readouterr().err
