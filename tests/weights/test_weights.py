"""Weights by name: the catalogue, downloads from a server that misbehaves, the hub, and
publishing.
"""

import http.server
import io
import json
import re
import threading
import time
from pathlib import Path

import pytest
import torch

from conftest import DATA
from sasv import cli, load_model
from sasv.checkpoints import load_checkpoint, save_checkpoint
from sasv.cli.present import models_text
from sasv.commands import (
    DownloadOptions,
    EvaluateOptions,
    ModelsOptions,
    PushOptions,
    download,
    evaluate,
    models,
    push,
)
from sasv.core.errors import CheckpointError, SasvError
from sasv.core.files import digest_of_file, locked
from sasv.weights import catalogue, fetch, find, resolve
from sasv.weights.fetch import check_whole
from sasv.weights.place import place_of

NAME = "row1-ska-train"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SASV_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def payload():
    stream = io.BytesIO()
    torch.save({"__S__.x": torch.arange(2_000_000.0)}, stream)
    return stream.getvalue()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves a file with the faults that a test requests, in the order of requests."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        server.requests.append((self.path, self.headers.get("Range")))
        vice = server.vices.pop(0) if server.vices else ""
        data, start = server.payload, 0
        wanted = self.headers.get("Range")
        if vice == "html":
            return self.answer(
                b"<!doctype html><html><head><title>Quota exceeded</title></head></html>",
                "text/html",
            )
        if vice.isdigit():
            return self.answer(b"no", code=int(vice))
        if wanted and vice != "ignores ranges":
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            span = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
            return self.answer(data[start:], code=206, extra=span)
        if vice == "breaks off":
            return self.answer(data, send=len(data) // 3)
        if vice == "stalls":
            return self.answer(data, send=len(data) // 3, wait=2.0)
        if vice == "claims less":
            return self.answer(data[: len(data) // 2])
        if vice == "claims more":
            return self.answer(data, claim=len(data) + 1000)
        return self.answer(data)

    do_HEAD = do_GET

    def answer(
        self,
        data,
        kind="application/octet-stream",
        code=200,
        send=None,
        wait=0.0,
        claim=None,
        extra=None,
    ):
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(claim or len(data)))
        for name, value in (extra or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(data[:send])
        self.wfile.flush()
        if wait:
            time.sleep(wait)
        if send is not None or claim:
            self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server(payload, monkeypatch):
    monkeypatch.setattr(
        "random.uniform", lambda low, high: 0.01
    )  # gdown waits between attempts, and so does fetch
    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.payload, found.vices, found.requests = payload, [], []
    found.url = f"http://127.0.0.1:{found.server_port}"
    thread = threading.Thread(target=found.serve_forever, daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()


def test_catalogue_equals_the_released_table():
    lines = (DATA / "weights.tsv").read_text().splitlines()[1:]
    released = {name: entry for name, entry in catalogue().items() if entry.row is not None}
    assert len(released) == len(lines) == 41
    for line, entry in zip(lines, released.values()):
        row, model, train_set, value, drive = (*line.split("\t"), "")[:5]
        assert (str(entry.row), entry.encoder.replace("-", "_"), entry.train_set) == (
            row,
            model,
            train_set,
        )
        assert (f"{entry.published:.2f}", entry.drive) == (value, drive)
    best = find(7, "mfa-conformer", "train+dev")
    assert (best.name, best.published) == ("row7-mfa-train+dev", 1.06)
    assert find(7, "ecapa-tdnn", "train") is None
    # the published 64 MB file is that of ECAPA-TDNN with the head of 5,994 classes
    assert catalogue()["row0-ecapa-voxceleb2"].megabytes / 1.048576 == pytest.approx(64, abs=1)
    assert place_of("row2-ska-train+dev") == place_of("row0-ska-voxceleb2")


def test_models_command_lists_downloaded_weights(home):
    found = models(ModelsOptions())
    out = models_text(found, ModelsOptions())
    assert "row7-mfa-train+dev" in out and "1.06%" in out and "never released" in out
    assert {row["name"]: row["path"] for row in found}[NAME] is None
    place_of(NAME).parent.mkdir(parents=True)
    place_of(NAME).write_bytes(b"x")
    found = models(ModelsOptions(local=True))
    assert [row["name"] for row in found if row["row"]] == [NAME]
    assert json.dumps(found)


def test_fetched_once_with_its_checksum(server, payload, capsys):
    path = fetch(NAME, server.url)
    assert path.read_bytes() == payload and path == resolve(NAME)
    note = json.loads(path.with_name(path.name + ".json").read_text())
    assert note["sha256"] == digest_of_file(path) and note["bytes"] == len(payload)
    assert fetch(NAME, server.url) == path and len(server.requests) == 1
    assert "already downloaded" in capsys.readouterr().err
    path.write_bytes(b"broken")  # the file was changed, so it is downloaded again
    assert fetch(NAME, server.url).read_bytes() == payload
    path.unlink()
    stream = io.BytesIO()
    torch.save({"__S__.y": torch.zeros(9)}, stream)
    server.payload = stream.getvalue()
    with pytest.raises(SasvError, match="use --renew to accept the new file"):
        fetch(NAME, server.url)
    assert not path.exists()
    assert fetch(NAME, server.url, renew=True).read_bytes() == stream.getvalue()


@pytest.mark.parametrize("vice", ["breaks off", "stalls", "503", "claims more"])
def test_interrupted_download_resumes(vice, server, payload):
    server.vices = [vice]
    assert fetch(NAME, server.url, timeout=0.5).read_bytes() == payload
    if vice in ("breaks off", "stalls"):
        assert server.requests[1][1].startswith("bytes=") and server.requests[1][1] != "bytes=0-"


def test_killed_download_resumes_where_it_stopped(server, payload):
    server.vices = ["breaks off"]
    with pytest.raises(SasvError, match="run the same command again to resume"):
        fetch(NAME, server.url, retries=0)
    assert fetch(NAME, server.url, retries=0).read_bytes() == payload
    assert server.requests[-1][1] not in (None, "bytes=0-")


def test_download_restarts_if_the_server_ignores_ranges(server, payload):
    server.vices = ["breaks off"]
    with pytest.raises(SasvError):
        fetch(NAME, server.url, retries=0)
    server.vices = ["ignores ranges", "ignores ranges", ""]
    assert fetch(NAME, server.url, retries=1).read_bytes() == payload


@pytest.mark.parametrize(
    "vice, message",
    [
        ("html", "web page .'Quota exceeded'. instead of the file; .*quota .*tomorrow"),
        ("claims less", "not a complete checkpoint; run the same command again"),
        ("404", "answered 404; check the address"),
    ],
)
def test_unusable_download_is_reported_in_one_line_and_leaves_no_file(
    vice, message, server, capsys
):
    server.vices = [vice] * 9
    assert cli.main(["download", NAME, "--mirror", server.url, "--retries", "1"]) == 2
    err = capsys.readouterr().err.strip().splitlines()
    assert re.search(message, err[-1]), err
    assert not list(place_of(NAME).parent.glob("*.model"))


def test_unreachable_host_is_reported(server, capsys):
    url = server.url
    server.shutdown()
    server.server_close()
    with pytest.raises(SasvError, match="no answer .*or use --mirror"):
        fetch(NAME, url, retries=0, timeout=1)


def test_google_drive_download_by_id_and_reported_refusal(monkeypatch):
    import gdown

    asked = []

    def refuse(url, output, **_):
        asked.append(url)
        raise gdown.exceptions.FileURLRetrievalError(
            "Too many users have viewed or downloaded this file recently."
        )

    monkeypatch.setattr(gdown, "download", refuse)
    with pytest.raises(SasvError, match="Too many users .*quota .*try again tomorrow.*--mirror"):
        fetch(NAME)
    assert asked == [f"https://drive.google.com/uc?id={catalogue()[NAME].drive}"]


def test_concurrent_downloads_of_the_same_weights_are_refused(server):
    with (
        locked(place_of(NAME).parent),
        pytest.raises(SasvError, match="another process is downloading these weights"),
    ):
        fetch(NAME, server.url)


@pytest.mark.slow
def test_a_mirror_folder_and_many_names(tmp_path, payload, server, capsys):
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / f"{NAME}.model").write_bytes(payload)
    assert fetch(NAME, str(tmp_path / "mirror")).read_bytes() == payload
    with pytest.raises(SasvError, match="1 of 2 could not be downloaded: row3-ska-train"):
        download(DownloadOptions([NAME, "row3-ska-train"], mirror=str(tmp_path / "mirror")))
    assert "the mirror does not contain this file" in capsys.readouterr().err
    assert (
        len(download(DownloadOptions(["all"], mirror=server.url))) == 38
    )  # rows 0 and 2 share two files


def test_names_of_weights_that_are_not_downloaded():
    with pytest.raises(
        CheckpointError,
        match=("not on this machine; download it with: sasv download row7-mfa-train.dev"),
    ):
        resolve("row7-mfa-train+dev")
    with pytest.raises(CheckpointError, match="never released these weights"):
        resolve("row9-mfa-train")
    with pytest.raises(CheckpointError, match="did you mean row7-mfa-train.dev"):
        resolve("row7-mfa-train-dev")
    with pytest.raises(CheckpointError, match="download it with: sasv download someone/model"):
        resolve("someone/model")
    with pytest.raises(CheckpointError, match="no such checkpoint; check the path"):
        resolve("/no/where.safetensors")
    with pytest.raises(CheckpointError, match="no weights of this name"):
        fetch("row99")


def test_catalogue_name_is_accepted_wherever_a_checkpoint_is(trained, corpus, tmp_path):
    """A published file of a small encoder under a catalogued name."""
    place_of(NAME).parent.mkdir(parents=True)
    save_checkpoint(place_of(NAME), load_checkpoint(trained / "model.safetensors"))
    tables = {name: str(corpus / f"{name}_dev.tsv") for name in ("enrolments", "trials")}
    out = str(tmp_path / "e")
    result = evaluate(
        EvaluateOptions(
            str(corpus / "utterances.tsv"), out, model=NAME, plot=False, intervals=0, **tables
        )
    )
    assert result["sasv_eer"] is not None
    assert load_model(NAME).dimension == 24


class Hub(Handler):
    """The parts of the Hugging Face hub that are needed to download a file."""

    def do_GET(self):
        if "/resolve/" not in self.path or not self.path.endswith("model.safetensors"):
            return self.answer(
                b"{}", "application/json", 404, extra={"X-Error-Code": "EntryNotFound"}
            )
        marks = {"ETag": '"' + "a" * 40 + '"', "X-Repo-Commit": "b" * 40, "Accept-Ranges": "bytes"}
        return self.answer(self.server.payload, extra=marks)

    do_HEAD = do_GET


def test_a_model_of_the_hub(trained, server, home):
    server.RequestHandlerClass = Hub
    server.payload = (trained / "model.safetensors").read_bytes()
    path = fetch("someone/voice", server.url)
    assert path.read_bytes() == server.payload and resolve("someone/voice") == path
    assert load_model("someone/voice").dimension == 24
    assert "someone/voice" in [row["name"] for row in models(ModelsOptions(local=True))]
    (home / "someone--voice" / "model.safetensors").unlink()


class Offline(Exception):
    """A transport error, which is not an OSError in newer clients."""


def test_push(trained, tmp_path, monkeypatch, corpus):
    import huggingface_hub

    sent = {}

    class Api:
        def create_repo(self, name, private, exist_ok):
            sent["repo"] = name, private

        def upload_folder(self, repo_id, folder_path, commit_message):
            sent["files"] = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    checkpoint = load_checkpoint(trained / "model.safetensors")
    checkpoint.specification.licence = "unknown"
    model = str(tmp_path / "m.safetensors")
    save_checkpoint(model, checkpoint)
    with pytest.raises(SasvError, match="states no licence"):
        push(PushOptions(model, "me/voice"))
    with pytest.raises(SasvError, match="the form org/name"):
        push(PushOptions(model, "voice", licence="cc-by-4.0"))
    metrics = tmp_path / "metrics.json"
    metrics.write_text(
        json.dumps({"sasv_eer": 12.5, "targets": 3, "intervals": {"sasv_eer": [10, 15]}})
    )
    address = push(PushOptions(model, "me/voice", licence="cc-by-4.0", metrics=str(metrics)))
    assert address == "https://huggingface.co/me/voice" and sent["repo"] == ("me/voice", False)
    text = sent["files"]["README.md"].decode()
    assert (
        text.startswith("---\nlicense: cc-by-4.0\n")
        and "| SASV-EER | 12.50% | 10.00% to 15.00% |" in text
    )
    monkeypatch.setattr(Api, "create_repo", lambda *_, **__: (_ for _ in ()).throw(Offline("down")))
    with pytest.raises(SasvError, match=r"the hub does not answer \(down\); check the network"):
        push(PushOptions(model, "me/voice", licence="cc-by-4.0"))
    folder = push(PushOptions(model, "me/voice", licence="cc-by-4.0", out=str(tmp_path / "kept")))
    assert load_checkpoint(Path(folder) / "model.safetensors").specification.licence == "cc-by-4.0"


def test_check_whole_detects_truncated_files(tmp_path, payload, trained):
    good = (trained / "model.safetensors").read_bytes()
    for data in (payload, good):
        (tmp_path / "x").write_bytes(data)
        check_whole(tmp_path / "x")
        for cut in (1, len(data) // 2, len(data) - 3):
            (tmp_path / "x").write_bytes(data[:cut])
            with pytest.raises(SasvError, match="not a complete checkpoint"):
                check_whole(tmp_path / "x")
