"""Files, members of tars, and objects in remote storage as paths in tables, and their failures."""

import hashlib
import http.server
import io
import tarfile
import threading

import numpy as np
import pytest
import soundfile

from sasv.audio import measure, read_audio, write_audio
from sasv.core.errors import AudioError, SasvError, StorageError
from sasv.storage import absolute, joined, locate, relative, remote, resource, tars
from sasv.storage.identity import file_identities
from sasv.storage.locations import as_folders, scheme_of, split_member

WAVE = (np.sin(np.arange(24000) * 0.05) * 0.4).astype(np.float32)


@pytest.mark.parametrize(
    "name, scheme, member",
    [
        ("a/b.wav", "", None),
        ("a#b/c.wav", "", None),
        ("x/shard-0.tar#k/a.flac", "", "k/a.flac"),
        ("x.tar#a.tar#b", "", "a.tar#b"),
        ("S3://bucket/k.wav", "s3", None),
        ("https://host/x.tar#k.wav", "https", "k.wav"),
    ],
)
def test_schemes_and_members_are_parsed_from_names(name, scheme, member):
    assert scheme_of(name) == scheme
    assert split_member(name)[1] == member


def test_paths_are_joined_made_absolute_and_made_relative():
    assert joined("/data", "s.tar#a/../b.wav") == "/data/s.tar#a/../b.wav"
    assert absolute("/data/x/../s.tar#a/./b.wav") == "/data/s.tar#a/./b.wav"
    assert relative("/data/s.tar#a.wav", "/data/tables") == "../s.tar#a.wav"
    for name in ("s3://bucket/a//b.wav", "https://host/s.tar#a"):
        assert joined("/data", name) == absolute(name) == relative(name, "/x") == name
    assert as_folders("s3://bucket/s.tar#/k/a.wav") == "/s3/bucket/s.tar/k/a.wav"
    assert as_folders("/data/a.wav") == "/data/a.wav"


def audio_bytes(kind):
    stream = io.BytesIO()
    soundfile.write(stream, WAVE, 16000, format=kind)
    return stream.getvalue()


@pytest.fixture
def packed(tmp_path):
    """A tar with an audio file of each kind, its index, and the same recordings as plain files."""
    entries = []
    with tarfile.open(tmp_path / "s.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        for number, kind in enumerate(("WAV", "FLAC", "OGG", "MP3")):
            data = audio_bytes(kind)
            info = tarfile.TarInfo(f"speaker/{kind}.{kind.lower()}" if number else "a" * 150)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
            (tmp_path / info.name[-8:].replace("/", "_")).write_bytes(data)
    with tarfile.open(tmp_path / "s.tar") as tar:
        for member in tar:
            digest = hashlib.sha256(tar.extractfile(member).read()).hexdigest()
            entries.append(tars.Entry(member.name, member.offset_data, member.size, digest))
    tars.write_index(tmp_path / "s.tar", entries)
    return tmp_path, entries


@pytest.mark.parametrize("in_blocks", [False, True])
@pytest.mark.parametrize("indexed", [True, False])
def test_members_are_read_as_files(packed, monkeypatch, indexed, in_blocks):
    folder, entries = packed
    if not indexed:
        (folder / "s.tar.index").unlink()
    if in_blocks:
        monkeypatch.setattr(resource, "WHOLE_BYTES", 100)
        monkeypatch.setattr(resource, "BLOCK_BYTES", 700)
    for entry in entries:
        member = f"{folder}/s.tar#{entry.member}"
        plain = folder / entry.member[-8:].replace("/", "_")
        assert measure(member) == measure(plain)
        for part in ({}, {"samples": 4000, "place": 0.7}, {"start": 9000, "rate": 8000}):
            assert np.array_equal(read_audio(member, **part), read_audio(plain, **part))


def test_containers_of_pyav_are_read_from_tars(tmp_path, monkeypatch):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "a.m4a"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(WAVE[None], format="fltp", layout="mono")
        frame.rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        tar.add(tmp_path / "a.m4a", "a.m4a")
    monkeypatch.setattr(resource, "WHOLE_BYTES", 100)
    member = f"{tmp_path}/s.tar#a.m4a"
    assert np.array_equal(read_audio(member), read_audio(tmp_path / "a.m4a"))


def test_the_index_is_searched_by_bytes():
    names = ["a", "a b", "a/b", "ab", "z" * 300, "\udce9.wav", "é.wav"]
    entries = [tars.Entry(name, 512 * (n + 1), n, "-") for n, name in enumerate(names)]
    index = tars.Index("x", tars.index_bytes(entries))
    assert [index.find(entry.member) for entry in entries] == entries
    assert index.entries() == entries
    assert all(index.find(name) is None for name in ("", "a ", "aa", "zz", "~"))


def test_faulty_tars_are_reported(packed):
    folder, entries = packed
    tar = folder / "s.tar"
    last = entries[-1]
    member = f"{tar}#{last.member}"
    with pytest.raises(AudioError, match="no such member"):
        locate(f"{tar}#nothing.wav")
    with pytest.raises(AudioError, match=r"t\.tar: no such file"):
        locate(f"{folder}/t.tar#a.wav")
    whole = tar.read_bytes()
    tar.write_bytes(whole[: last.offset + 10])
    with pytest.raises(AudioError, match="the tar is truncated or the index belongs to another"):
        read_audio(member)
    tar.write_bytes(whole)
    moved = [last._replace(offset=last.offset - 512)]
    tars.write_index(tar, moved)
    with pytest.raises(AudioError, match="the index does not belong to this tar"):
        read_audio(member)
    (folder / "s.tar.index").write_bytes(b"member\toffset\tsize\tsha256\nx\ty")
    with pytest.raises(AudioError, match="not the index of a tar"):
        read_audio(member)
    (folder / "s.tar.index").unlink()
    tar.write_bytes(b"no tar at all" * 100)
    with pytest.raises(AudioError, match="not a tar"):
        read_audio(member)


def test_file_identities_of_files_and_members(packed):
    folder, entries = packed
    member = f"{folder}/s.tar#{entries[1].member}"
    plain, inside, gone = file_identities([str(folder / "s.tar"), member, member + "x"])
    assert inside.endswith(entries[1].sha256)
    assert gone.endswith("missing")
    assert plain != inside


class Server(http.server.ThreadingHTTPServer):
    """Serves bytes by name, with ranges. Each entry of ``faults`` causes one failure."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects = {}
        self.faults = []
        self.ranges = True
        self.requests = []
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def address(self, name):
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        server = self.server
        wanted = self.headers.get("Range")
        server.requests.append((self.command, wanted))
        fault = server.faults.pop(0) if server.faults else ""
        data = server.objects.get(self.path[1:])
        if fault == "vanish" or data is None:
            return self.reply(404, b"", body)
        if fault == "503":
            return self.reply(503, b"", body)
        if wanted and server.ranges:
            start, stop = wanted.removeprefix("bytes=").split("-")
            data = data[int(start) : int(stop) + 1]
        if fault == "short":
            data = data[:-5]
        if fault == "other":
            data = bytes(512) + data[512:] if len(data) > 512 else data
            data = data[:-3] + b"xyz"
        if fault == "drop":
            self.close_connection = True
            return self.connection.close()
        return self.reply(206 if wanted and server.ranges else 200, data, body)

    def reply(self, status, data, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Accept-Ranges", "bytes" if self.server.ranges else "none")
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    pytest.importorskip("aiohttp", reason='needs the extra: pip install "sasv[remote]"')
    monkeypatch.setattr(remote, "PAUSES", (0.0, 0.0))
    remote.remote_object.cache_clear()
    resource._bytes_of.cache_clear()
    tars._fetched.cache_clear()
    started = Server()
    yield started
    started.shutdown()
    started.server_close()


def test_objects_and_members_behind_addresses(server, packed, tmp_path):
    folder, entries = packed
    for name in ("s.tar", "s.tar.index"):
        server.objects[name] = (folder / name).read_bytes()
    server.objects["a.wav"] = audio_bytes("WAV")
    (tmp_path / "plain.wav").write_bytes(server.objects["a.wav"])
    expected = read_audio(tmp_path / "plain.wav", 500, 3000)
    assert np.array_equal(read_audio(server.address("a.wav"), 500, 3000), expected)
    for entry in entries:
        member = f"{folder}/s.tar#{entry.member}"
        wave = read_audio(server.address("s.tar") + "#" + entry.member)
        assert np.array_equal(wave, read_audio(member))
    assert ("GET", None) in server.requests  # the whole small object
    assert len([1 for _, wanted in server.requests if wanted]) == len(entries)  # one range each
    assert "127.0.0.1" in file_identities([server.address("a.wav")])[0]


@pytest.mark.parametrize("fault", ["503", "short", "drop", "other"])
def test_temporary_failures_are_retried(server, packed, fault):
    folder, entries = packed
    for name in ("s.tar", "s.tar.index"):
        server.objects[name] = (folder / name).read_bytes()
    address = server.address("s.tar") + "#" + entries[1].member
    found = locate(address)
    server.faults = [fault]
    if fault == "other":
        # The header differs as well, so this is another tar, not a failed transfer.
        with pytest.raises(AudioError, match="does not belong to this tar"):
            found.read()
    assert found.read() == found.read()


def test_permanent_failures_are_reported_in_one_line(server, packed):
    folder, entries = packed
    data = audio_bytes("WAV")
    server.objects["a.wav"] = data
    address = server.address("a.wav")
    with pytest.raises(AudioError, match=r"b\.wav: no such object"):
        read_audio(server.address("b.wav"))
    found = locate(address)
    server.faults = ["503"] * 3
    with pytest.raises(StorageError, match=r"in 3 attempts \(.*503.*check the network"):
        found.read()
    server.faults = ["vanish"]
    with pytest.raises(AudioError, match="no such object"):
        found.read()
    server.ranges = False
    with pytest.raises(StorageError, match="whole object although only a range"):
        found.read(10, 20)
    server.objects["s.tar"] = (folder / "s.tar").read_bytes()
    with pytest.raises(AudioError, match="the index of the tar cannot be read"):
        locate(server.address("s.tar") + "#x.wav")
    server.faults = ["drop"] * 20
    with pytest.raises(StorageError, match="could not be fetched in"):
        found.read()


def test_storage_failure_during_decoding_is_not_reported_as_truncation(server, monkeypatch):
    server.objects["a.wav"] = audio_bytes("WAV")
    monkeypatch.setattr(resource, "WHOLE_BYTES", 100)
    monkeypatch.setattr(resource, "BLOCK_BYTES", 4096)
    original = remote.RemoteObject.read

    def read(self, start=0, stop=None):
        if start >= 16384:
            raise StorageError("gone")
        return original(self, start, stop)

    monkeypatch.setattr(remote.RemoteObject, "read", read)
    with pytest.raises(StorageError, match="gone"):
        read_audio(server.address("a.wav"))


def test_unknown_addresses_and_missing_packages(monkeypatch):
    with pytest.raises(SasvError, match=r"'ftp://' are not supported.*s3://"):
        locate("ftp://host/a.wav")
    remote._systems.clear()
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    with pytest.raises(SasvError, match=r'pip install "sasv\[remote\]"'):
        locate("s3://bucket/a.wav")


def test_local_file_with_a_number_sign_in_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_audio(tmp_path / "a#b.wav", WAVE)
    assert len(read_audio("a#b.wav")) == len(WAVE)
