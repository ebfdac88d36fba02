"""The server on a real socket: the Python client, streams, and malicious clients."""

import contextlib
import datetime
import ipaddress
import json
import signal
import socket
import threading
import time

import numpy as np
import pytest

from conftest import buzz
from sasv.client import Client, ServiceError
from sasv.core.errors import SasvError
from serving import PITCHES, RATE, api_key, speech

pytest.importorskip("uvicorn", reason="uvicorn is not installed")


@pytest.fixture
def running(made):
    """A function (settings...) -> (service, client) for a server in a thread."""
    from sasv.service.app import create_app
    from sasv.service.server import Address, listening, make_server

    servers = []

    def run(connections=50, certificate="", private_key="", **settings):
        service = made(**({"body_timeout": 0.6, "stream_timeout": 2.0} | settings))
        address = Address(
            port=0,
            certificate=str(certificate),
            private_key=str(private_key),
            connections=connections,
            header_timeout=0.6,
            grace=5,
        )
        server = make_server(create_app(service), address)
        bound = listening(address)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        servers.append((server, thread))
        url = f"http{'s' if certificate else ''}://127.0.0.1:{bound.getsockname()[1]}"
        return service, Client(url, api_key(service, "t"), 10, 2, str(certificate))

    run.servers = servers
    yield run
    for server, _ in servers:
        server.should_exit = True
    for _, thread in servers:
        thread.join(20)
        assert not thread.is_alive()


def opened(client, data=b""):
    """Open a connection and send bytes."""
    found = socket.create_connection(("127.0.0.1", client._parts.port), timeout=10)
    found.sendall(data)
    return found


def closed(connection):
    """Return the data that a connection receives until the other side closes it."""
    data = b""
    try:
        while piece := connection.recv(65536):
            data += piece
    except ConnectionResetError:
        pass
    return data


def test_python_client(running, tmp_path):
    _, client = running()
    assert client.create_speaker("ann", "form 7", 30)["consent"] == "form 7"
    (tmp_path / "ann.wav").write_bytes(speech("ann"))
    assert client.enrol("ann", tmp_path / "ann.wav", "phone")["voiceprint"]["label"] == "phone"
    assert client.verify("ann", speech("ann", 4))["outcome"] == "accept"
    assert client.identify(speech("ann", 4))["candidates"][0]["speaker"] == "ann"
    assert list(client.speakers()) == ["ann"] and client.speaker("ann")["voiceprints"]
    assert client.about()["sample_rate"] == RATE
    assert client.export_speaker("ann")["voiceprints"]
    with pytest.raises(ServiceError, match="cannot do this") as caught:
        client.detect(speech("ann"))
    assert (caught.value.status, caught.value.code) == (501, "not_supported")
    with pytest.raises(ServiceError, match="is not valid"):
        client.verify("../x", speech("ann"))
    with pytest.raises(SasvError, match="cannot be read"):
        client.enrol("ann", tmp_path / "none.wav")
    assert client.delete_speaker("ann")["deleted"]
    client.close()
    with pytest.raises(ServiceError, match="cannot be reached"):
        Client("http://127.0.0.1:9", attempts=1).about()
    with pytest.raises(SasvError, match="not the address of a service"):
        Client("ftp://x")


def test_answers_do_not_wait_for_acknowledgements():
    """Every connection sends small packets at once."""
    from sasv.service.server import Address, listening

    with listening(Address("127.0.0.1", 0)) as bound, socket.create_connection(bound.getsockname()):
        connection, _ = bound.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_client_opens_a_new_connection_after_the_service_closed_an_idle_one():
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            for _ in range(2):
                connection, _ = listening.accept()
                connection.recv(65536)
                connection.sendall(answer)
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        client = Client(f"http://127.0.0.1:{listening.getsockname()[1]}", attempts=1)
        assert client.about() == client.about() == {}
        thread.join()
        client.close()


@pytest.mark.slow
def test_streams(running):
    service, client = running()
    client.create_speaker("eve")
    client.enrol("eve", speech("eve"))
    wave = np.round(32768 * buzz(4 * RATE, PITCHES["eve"], 7)).astype("<i2").tobytes()
    pieces = [wave[start : start + 9999] for start in range(0, len(wave), 9999)]
    found = list(client.stream("eve", pieces))
    assert found[-1]["final"] and found[-1]["outcome"] == "accept" and found[-1]["heard"] == 4.0
    assert len(found) > 2 and found[-1]["speaker"] == "eve"
    whole = client.verify("eve", speech("eve", 7, 4.0))
    assert found[-1]["score"] == pytest.approx(whole["score"], abs=1e-3)
    slow = np.round(32768 * buzz(4 * RATE, PITCHES["eve"], 7)[::2]).astype("<i2").tobytes()
    assert list(client.stream("eve", [slow], rate=8000))[-1]["heard"] == pytest.approx(4, abs=0.1)
    for start, code in (
        ({"format": "mp3"}, "invalid_request"),
        ({"label": "none"}, "not_enrolled"),
        ({"key": "sasv_x"}, "unauthenticated"),
    ):
        with pytest.raises(ServiceError) as caught:
            list(client.stream("eve", pieces, **start))
        assert caught.value.code == code
    with pytest.raises(ServiceError, match="no message"):
        list(client.stream("eve", (time.sleep(3) or piece for piece in pieces[:1])))
    assert service.open_streams == 0


def test_a_stream_of_opus(running):
    av = pytest.importorskip("av", reason="PyAV is not installed")
    _, client = running()
    client.create_speaker("eve")
    client.enrol("eve", speech("eve"))
    encoder = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format = 48000, "mono", "s16"
    encoder.open()
    wave = np.repeat(np.round(32768 * buzz(2 * RATE, PITCHES["eve"], 7)).astype(np.int16), 3)
    packets = []
    for start in range(0, len(wave) - 959, 960):
        frame = av.AudioFrame.from_ndarray(wave[None, start : start + 960], "s16", "mono")
        frame.sample_rate, frame.pts = 48000, start
        packets += [bytes(packet) for packet in encoder.encode(frame)]
    last = list(client.stream("eve", packets, format="opus"))[-1]
    assert last["final"] and last["heard"] == pytest.approx(2, abs=0.1)
    with pytest.raises(ServiceError, match="not an Opus packet"):
        list(client.stream("eve", [b"\xff\xff\xff\xff"], format="opus"))


@pytest.mark.slow
def test_clients_that_send_slowly_or_nothing(running, caplog):
    caplog.set_level("INFO", "sasv")
    _, client = running(connections=20)
    idle = [opened(client) for _ in range(60)]
    assert client.about()  # the idle connections are closed
    half = opened(client, b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-")
    key = client.key.encode()
    head = b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + key
    body = opened(client, head + b"\r\nContent-Length: 1000\r\n\r\nabc")
    huge = opened(client, head + b"\r\nContent-Length: 2000000000\r\n\r\n" + bytes(100_000))
    broken = opened(client, b"GET / HTTP/9.9\r\n\x00\r\n\r\n")
    assert b" 413 " in closed(huge)
    answer = closed(body)
    assert b" 408 " in answer and b"problem+json" in answer
    assert b"200" not in closed(half) and b"Traceback" not in closed(broken)
    left = opened(client, head + b"\r\nContent-Length: 1000\r\n\r\nabc")
    left.close()
    for connection in idle:
        closed(connection)
    assert client.about()
    for _ in range(100):
        if "the client disconnected before its body was complete" in caplog.text:
            break
        time.sleep(0.05)
    else:
        pytest.fail(caplog.text)
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"200"),
        (b"GET /health/live HTTP/1.0\r\n\r\n", b"200"),
        (b"GET /health/live HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /health/live HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", b"400"),
        (b"GET /health/live HTTP/1.1\nHost: x\n\n", b"400"),
        (b"GET /health/live HTTP/1.1\r\nHost : x\r\n\r\n", b"400"),
        (b"GET /health/live HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n", b"400"),
        (b"GET /health/\xff HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", b"400"),
        (
            b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"400",
        ),
    ],
)
def test_requests_that_servers_could_read_differently_are_refused(running, request_, status):
    _, client = running()
    connection = opened(client, request_)
    assert closed(connection).split(b" ")[1] == status


@pytest.mark.parametrize(
    ("start", "endless"),
    [
        (b"GET /", b"a"),
        (b"GET /health/live HTTP/1.1\r\nHost: x\r\nX: ", b"a"),
        (b"GET /health/live HTTP/1.1\r\nHost: x\r\n", b"a"),
        (b"GET /health/live HTTP/1.1\r\nHost: x\r\n", b"X: a\r\n"),
        (b"{post}Transfer-Encoding: chunked\r\n\r\n1;", b"a"),
        (b"{post}Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n", b"X: a\r\n"),
        (b"{post}Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: ", b"a"),
    ],
)
@pytest.mark.parametrize("piece", [1000, 1_000_000])
def test_headers_without_an_end_are_refused(running, start, endless, piece):
    _, client = running()
    post = b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + client.key.encode()
    connection = opened(client, start.replace(b"{post}", post + b"\r\n"))
    part = endless * (piece // len(endless))
    sent = 0
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for _ in range(5_000_000 // piece):
            connection.sendall(part)
            sent += len(part)
            if piece == 1000:
                time.sleep(0.0005)
    answer = closed(connection)
    assert sent < 5_000_000 and b" 200 " not in answer
    assert client.about()


def test_batched_results_equal_those_of_single_recordings(model):
    from sasv.service.batching import BatchingModel

    sizes = []
    # The first batch is formed when all five wait, in whatever order they come, and the second when
    # the model is closed.
    batching = BatchingModel(model, 5, 60.0, sizes.append)
    waves = [buzz(RATE + 100 * row, 100 + 20 * row, row) for row in range(4)]
    waves.append(buzz(5 * RATE, 200))
    found = {}
    threads = [
        threading.Thread(target=lambda row=row: found.update({row: batching.embed(waves[row])}))
        for row in range(len(waves))
    ]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 50
    while not sizes and time.monotonic() < until:
        time.sleep(0.01)
    batching.close()
    for thread in threads:
        thread.join()
    for row, wave in enumerate(waves):
        np.testing.assert_allclose(found[row], model.embed(wave), rtol=1e-4, atol=1e-6)
    assert sorted(sizes) == [1, 4]


def test_start_messages_are_json(running):
    from websockets.sync.client import connect

    _, client = running()
    for first in ("", "[]", "x" * 1000, json.dumps({"type": "start"}), b"\x00"):
        with connect(f"ws://127.0.0.1:{client._parts.port}/v1/stream") as stream:
            stream.send(first)
            assert json.loads(stream.recv(5))["code"] == "invalid_request"


def certified(folder, password=None):
    """Write a certificate of this machine that signs itself, and its key; return both paths."""
    x509 = pytest.importorskip("cryptography.x509", reason="cryptography is not installed")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, private_key = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    sealed = serialization.NoEncryption()
    if password:
        sealed = serialization.BestAvailableEncryption(password)
    encodings = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    private_key.write_bytes(key.private_bytes(*encodings, sealed))
    return certificate, private_key


@pytest.mark.slow
def test_tls(running, tmp_path, monkeypatch):
    """Requests and streams over TLS; at the end, what was accepted is finished."""
    certificate, private_key = certified(tmp_path)
    service, client = running(certificate=certificate, private_key=private_key)
    client.create_speaker("eve")
    client.enrol("eve", speech("eve"))
    assert client.verify("eve", speech("eve", 4))["outcome"] == "accept"
    wave = np.round(32768 * buzz(2 * RATE, PITCHES["eve"], 7)).astype("<i2").tobytes()
    assert list(client.stream("eve", [wave]))[-1]["outcome"] == "accept"
    with pytest.raises(ServiceError, match="self-signed certificate"):
        Client(client.url, client.key, attempts=9).about()  # not again and again
    with pytest.raises(ServiceError, match="cannot be reached"):
        Client(client.url.replace("https", "http"), attempts=1).about()
    best, begun = service.engine.best, threading.Event()

    def slowly(*arguments):
        begun.set()
        time.sleep(0.5)
        return best(*arguments)

    monkeypatch.setattr(service.engine, "best", slowly)
    answers = []
    asking = threading.Thread(target=lambda: answers.append(client.verify("eve", speech("eve", 5))))
    asking.start()
    assert begun.wait(10)
    server, thread = running.servers[0]
    server.handle_exit(signal.SIGTERM, None)
    asking.join(10)
    thread.join(10)
    assert not thread.is_alive() and answers[0]["outcome"] == "accept"
    with pytest.raises(ServiceError, match="cannot be reached"):
        Client(client.url, client.key, attempts=1, ca_file=str(certificate)).about()


def test_certificates_that_cannot_be_used(running, tmp_path):
    certificate, private_key = certified(tmp_path, b"secret")
    for pair in (
        (certificate, private_key),  # OpenSSL would ask for the password
        (certificate, tmp_path / "none.pem"),
        (private_key, certificate),
    ):
        with pytest.raises(SasvError, match="certificate and its key cannot be used"):
            running(certificate=pair[0], private_key=pair[1])
    for file in (tmp_path / "none.pem", private_key):
        with pytest.raises(SasvError, match="cannot be used as certificates"):
            Client("https://x", ca_file=str(file))
