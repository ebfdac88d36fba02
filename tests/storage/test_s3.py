"""Recordings on an S3 server (moto, on this machine) with the failures of real ones: slow or busy
servers, truncated responses, ignored ranges, wrong bytes, and missing objects.
"""

import contextlib
import itertools
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from sasv.audio import read_audio
from sasv.commands import EmbedOptions, PackOptions, embed, pack
from sasv.core.errors import AudioError, SasvError, StorageError
from sasv.embeddings.extract import Embeddings
from sasv.storage import locate, remote, resource, tars
from sasv.tables import load_utterances

pytestmark = pytest.mark.long
BUCKET = "speech"
KEYS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
}


class Server:
    """An S3 server whose responses to reads can be corrupted.

    Attributes:
        fault: what happens to the next reads: "", "503", "slow", "cut", "whole", or "other bytes".
        left: number of reads that are corrupted before the server works again.
        every: if not 0, every n-th read is corrupted as well, with one fault after the other.
        reads: (method, path, range) of each read.
    """

    FAULTS = ("503", "slow", "cut")

    def __init__(self):
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        self.fault = ""
        self.left = 0
        self.every = 0
        self.reads = []
        self.kinds = itertools.cycle(self.FAULTS)
        self.application = DomainDispatcherApplication(create_backend_app)
        self.server = make_server("127.0.0.1", 0, self, threaded=True)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def __call__(self, environ, start_response):
        method = environ["REQUEST_METHOD"]
        if method not in ("GET", "HEAD"):
            return self.application(environ, start_response)
        self.reads.append((method, environ["PATH_INFO"], environ.get("HTTP_RANGE", "")))
        fault = ""
        if self.left > 0:
            self.left -= 1
            fault = self.fault
        elif self.every and len(self.reads) % self.every == 0:
            fault = next(self.kinds)
        if fault == "503":
            start_response("503 Slow Down", [("Content-Length", "0"), ("Connection", "close")])
            return [b""]
        if fault == "whole":
            environ.pop("HTTP_RANGE", None)
        body = b"".join(self.application(environ, start_response))
        if method == "HEAD" or fault not in ("slow", "cut", "other bytes"):
            return [body]
        return self.spoilt(body, fault)

    def spoilt(self, body, fault):
        """Send a corrupted body."""
        half = len(body) // 2
        if fault == "other bytes":
            yield body[:half] + bytes(255 - byte for byte in body[half:])
            return
        yield body[:half]
        if fault == "slow":
            time.sleep(1.5)  # longer than the client waits
        if fault == "cut":
            raise ConnectionError("cut")
        with contextlib.suppress(OSError):
            yield body[half:]

    def close(self):
        self.server.shutdown()


@pytest.fixture(scope="module")
def running():
    for package in ("moto", "flask", "s3fs"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install {package}")
    server = Server()
    yield server
    server.close()


@pytest.fixture
def server(running, monkeypatch):
    """The server, which this process finds through the environment variables of AWS clients."""
    import s3fs

    for name, value in {**KEYS, "AWS_ENDPOINT_URL": running.address}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(remote, "PAUSES", (0.05, 0.1, 0.1))
    monkeypatch.setattr(remote, "SILENT_SECONDS", 1)
    for cache in (remote.remote_object, resource._bytes_of, tars._fetched):
        cache.cache_clear()
    remote._systems.clear()
    s3fs.S3FileSystem.clear_instance_cache()
    running.fault = ""
    running.left = 0
    running.every = 0
    running.reads.clear()
    yield running
    remote._systems.clear()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def client(server):
    import boto3

    return boto3.client("s3", endpoint_url=server.address)


@pytest.fixture
def uploaded(server, client, corpus, tmp_path):
    """The tiny corpus in shards, uploaded, and the table that refers to it."""
    folder = tmp_path / "packed"
    pack(PackOptions(str(corpus / "utterances.tsv"), str(folder), "400KB"))
    client.create_bucket(Bucket=BUCKET)
    for path in folder.iterdir():
        client.put_object(Bucket=BUCKET, Key=f"packed/{path.name}", Body=path.read_bytes())
    table = load_utterances(folder / "utterances.tsv").table
    places = [f"s3://{BUCKET}/packed/{path}" for path in table.texts("path")]
    path = tmp_path / "remote.tsv"
    table.with_column("path", places).save(path)
    yield path
    server.left = 0
    for entry in client.list_objects_v2(Bucket=BUCKET)["Contents"]:
        client.delete_object(Bucket=BUCKET, Key=entry["Key"])


def test_speech_from_s3_equals_speech_from_disk(server, uploaded, corpus):
    remote_table = load_utterances(uploaded)
    plain = load_utterances(corpus / "utterances.tsv")
    for row in range(0, len(plain), 3):
        assert np.array_equal(read_audio(remote_table.path(row)), read_audio(plain.path(row)))
    ranged = [asked for _, path, asked in server.reads if path.endswith(".tar") and asked]
    assert len(ranged) == len(range(0, len(plain), 3))  # one request for each recording


@pytest.mark.parametrize("fault", ["503", "slow", "cut", "other bytes"])
def test_temporary_failure_does_not_change_the_result(server, uploaded, fault):
    path = load_utterances(uploaded).path(5)
    good = locate(path).read()
    server.fault = fault
    server.left = 1
    assert locate(path).read() == good
    assert server.left == 0


@pytest.mark.parametrize(
    "fault, message",
    [
        ("503", r"could not be fetched in \d attempts"),
        ("slow", r"could not be fetched in \d attempts"),
        ("cut", r"could not be fetched in \d attempts"),
        ("whole", "sent the whole object although only a range was requested"),
        ("other bytes", "its checksum differs from that in the index"),
    ],
)
def test_permanent_failure_is_reported_in_one_line(server, uploaded, fault, message):
    path = load_utterances(uploaded).path(5)
    found = locate(path)
    found.tar.read(0, 10)
    server.fault = fault
    server.left = 1000
    kind = AudioError if fault == "other bytes" else StorageError
    with pytest.raises(kind, match=message) as caught:
        found.read()
    assert BUCKET in str(caught.value)
    assert "\n" not in str(caught.value)


def test_objects_deleted_during_a_run(server, client, uploaded):
    table = load_utterances(uploaded)
    first = table.path(0)
    found = locate(first)
    key = first.removeprefix(f"s3://{BUCKET}/").partition("#")[0]
    client.delete_object(Bucket=BUCKET, Key=key)
    with pytest.raises(AudioError, match="no such object; check the address"):
        found.read()
    remote.remote_object.cache_clear()
    with pytest.raises(AudioError, match="no such object"):
        locate(first)
    other = next(path for path in table.paths if not path.startswith(f"s3://{BUCKET}/{key}"))
    client.delete_object(Bucket=BUCKET, Key=other.partition("packed/")[2].partition("#")[0])
    index = other.partition("#")[0].removeprefix(f"s3://{BUCKET}/") + ".index"
    client.delete_object(Bucket=BUCKET, Key=index)
    with pytest.raises(AudioError, match="the index of the tar cannot be read"):
        locate(other)


def test_refused_access_keys_are_reported(server, uploaded, monkeypatch):
    path = load_utterances(uploaded).path(0)
    remote.remote_object.cache_clear()

    def refuse(environ, start_response):
        start_response("403 Forbidden", [("Content-Length", "0")])
        return [b""]

    with monkeypatch.context() as patch:
        patch.setattr(server, "application", refuse)
        with pytest.raises(SasvError, match="access denied"):
            locate(path)


def test_a_command_on_a_bad_server_ends_with_the_same_embeddings(
    server, uploaded, corpus, trained, tmp_path
):
    model = str(trained / "model.safetensors")
    embed(EmbedOptions(str(corpus / "utterances.tsv"), str(tmp_path / "disk"), model))
    server.every = 4
    words = ["embed", uploaded, "--out", tmp_path / "s3", "--model", model]
    # FSSPEC_S3_ENDPOINT_URL is how the documentation names another server.
    environment = {**os.environ, "FSSPEC_S3_ENDPOINT_URL": server.address}
    del environment["AWS_ENDPOINT_URL"]
    run = [sys.executable, "-m", "sasv", *map(str, words)]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    found, expected = (Embeddings.load(tmp_path / name) for name in ("s3", "disk"))
    assert found.utterances == expected.utterances
    assert np.array_equal(found.vectors, expected.vectors)
