"""A client of the service (``sasv serve``) that needs only the standard library.

``Client("https://voice.example", key).verify("ann", "test.wav")["outcome"]``
"""

import contextlib
import http.client
import json
import os
import ssl
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from sasv.core.errors import MissingExtra, SasvError

Audio = str | os.PathLike[str] | bytes
"""A path, or the bytes of an audio file."""

AGAIN = (408, 429, 502, 503, 504)
"""HTTP statuses after which a request is repeated."""

IN_PROGRESS = "in_progress"
LONGEST_WAIT = 30.0
PAGE = 1000


class ServiceError(SasvError):
    """The service refused a request, or cannot be reached.

    Attributes:
        status: of the response; 0 if there was none.
        code: identifies the problem (see docs/guides/service.md).
        problem: the body of the response.
    """

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        title = problem.get("title", _phrase(status))
        detail = problem.get("detail", "the response does not come from a service of sasv")
        super().__init__(f"{title}: {detail}")
        self.status = status
        self.code = str(problem.get("code", ""))
        self.problem = dict(problem)


class Client:
    """Client of a service. Threads may share it; each uses its own connection."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        key: str = "",
        timeout: float = 60.0,
        attempts: int = 4,
        ca_file: str = "",
    ) -> None:
        """Set up a client; nothing is sent yet.

        Args:
            url: address of the service.
            key: API key; by default, that in the environment variable SASV_API_KEY.
            timeout: seconds to wait for a response.
            attempts: maximum number of attempts for a request that fails for a temporary reason.
                The service executes a repeated request only once, because the client sends an
                idempotency key.
            ca_file: file of certificates to trust, instead of those of the system.

        Raises:
            SasvError: the address does not begin with http:// or https://, or ``ca_file`` cannot be
                read.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SasvError(f"{url}: this is not the address of a service; write http://HOST:PORT")
        self.url = url.rstrip("/")
        self.key = key or os.environ.get("SASV_API_KEY", "")
        self.timeout = timeout
        self.attempts = attempts
        self._parts = parts
        self._tls: ssl.SSLContext | None = None
        if parts.scheme == "https":
            self._tls = _trusting(ca_file)
        self._local = threading.local()

    def about(self) -> dict[str, Any]:
        """Return the model, the limits, and what the API key allows."""
        return self._json("GET", "/v1/about")

    def create_speaker(
        self, speaker: str = "", consent: str = "", expires_in_days: float | None = None
    ) -> dict[str, Any]:
        """Create a speaker. Without an identifier, the service chooses one."""
        values = {"id": speaker or None, "consent": consent, "expires_in_days": expires_in_days}
        body = json.dumps(values).encode()
        return self._json("POST", "/v1/speakers", body, "application/json")

    def speakers(self) -> Iterator[str]:
        """Yield the identifiers of all speakers, in order."""
        after: str | None = ""
        while after is not None:
            page = self._json("GET", f"/v1/speakers?{urlencode({'after': after, 'limit': PAGE})}")
            yield from page["speakers"]
            after = page["next"]

    def speaker(self, speaker: str) -> dict[str, Any]:
        """Return a speaker and the speaker's voiceprints."""
        return self._json("GET", _speaker(speaker))

    def delete_speaker(self, speaker: str, opt_out: bool = False) -> dict[str, Any]:
        """Delete a speaker and return the receipt.

        Args:
            speaker: identifier.
            opt_out: make the service refuse enrolments of this speaker from now on.
        """
        query = "?opt_out=true" if opt_out else ""
        return self._json("DELETE", _speaker(speaker) + query)

    def export_speaker(self, speaker: str) -> dict[str, Any]:
        """Return everything that the service stores about a speaker."""
        return self._json("GET", f"{_speaker(speaker)}/export")

    def enrol(
        self,
        speaker: str,
        recording: Audio,
        label: str = "",
        replace: bool = False,
        unique: bool = False,
    ) -> dict[str, Any]:
        """Add a recording to a voiceprint of a speaker.

        Args:
            speaker: identifier.
            recording: the speaker's speech.
            label: selects one of the speaker's voiceprints.
            replace: replace the voiceprint instead of adding to it.
            unique: make the service refuse a voice that is already enrolled as another speaker.
        """
        values = {"label": label, "replace": str(replace).lower(), "unique": str(unique).lower()}
        return self._audio(f"{_speaker(speaker)}/enrolments", recording, values)

    def verify(self, speaker: str, recording: Audio, label: str | None = None) -> dict[str, Any]:
        """Return the decision on the claim that a recording comes from a speaker."""
        values = {"speaker": speaker} | ({} if label is None else {"label": label})
        return self._audio("/v1/verify", recording, values)

    def identify(self, recording: Audio, top: int = 5) -> dict[str, Any]:
        """Return the speakers whose voiceprints are most similar to a recording."""
        return self._audio("/v1/identify", recording, {"top": str(top)})

    def detect(self, recording: Audio) -> dict[str, Any]:
        """Return whether a recording is bona fide or spoofed speech."""
        return self._audio("/v1/detect", recording, {})

    def stream(
        self, speaker: str, pieces: Iterable[bytes], rate: int = 16_000, **start: Any
    ) -> Iterator[dict[str, Any]]:
        """Yield decisions on speech that arrives in pieces. The last one has ``final`` set.

        Args:
            speaker: the claimed speaker.
            pieces: samples as 16-bit little-endian integers, one channel; or Opus packets.
            rate: sample rate in Hz.
            start: further entries of the first message: ``format``, ``label``, and ``every``.

        Raises:
            ServiceError: the service refuses the stream.
            MissingExtra: the package websockets is not installed.
        """
        try:
            from websockets.exceptions import WebSocketException
            from websockets.sync.client import connect
        except ImportError as error:
            raise MissingExtra("websockets", "serve", "a stream") from error
        first = {"type": "start", "speaker": speaker, "rate": rate, "key": self.key} | start
        address = "ws" + self.url.removeprefix("http") + "/v1/stream"
        try:
            with connect(address, ssl=self._tls, open_timeout=self.timeout) as socket:
                socket.send(json.dumps(first))
                _checked(socket.recv(self.timeout))
                yield from self._conversation(socket, iter(pieces))
        except (OSError, WebSocketException) as error:
            raise ServiceError(
                0, {"title": "the stream was interrupted", ("detail"): str(error)}
            ) from error

    def _conversation(self, socket: Any, pieces: Iterator[bytes]) -> Iterator[dict[str, Any]]:
        """Send all pieces, and yield the messages that arrive meanwhile and afterwards."""
        for piece in pieces:
            _send(socket, piece)
            try:
                message = _checked(socket.recv(0))
            except TimeoutError:
                continue
            yield message
            if message["final"]:
                return
        _send(socket, json.dumps({"type": "end"}))
        final = False
        while not final:
            message = _checked(socket.recv(self.timeout))
            final = message["final"]
            yield message

    def _audio(self, path: str, recording: Audio, values: Mapping[str, str]) -> dict[str, Any]:
        if isinstance(recording, bytes):
            data = recording
        else:
            try:
                data = Path(recording).read_bytes()
            except OSError as error:
                raise SasvError(
                    f"{os.fspath(recording)}: cannot be read ({error.strerror}); check the path"
                ) from error
        query = f"?{urlencode(values)}" if values else ""
        return self._json("POST", path + query, data, "application/octet-stream")

    def _json(
        self, method: str, path: str, body: bytes | None = None, kind: str = ""
    ) -> dict[str, Any]:
        """Make a request and return its JSON. Temporary failures are retried."""
        headers = {"Accept": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        if body is not None:
            headers |= {"Content-Type": kind, "Idempotency-Key": uuid.uuid4().hex}
        for attempt in range(self.attempts):
            last = attempt == self.attempts - 1
            wait = 0.2 * 2**attempt
            try:
                status, data, retry = self._asked(method, path, body, headers)
            except (OSError, http.client.HTTPException) as error:
                self._forget()
                # Another attempt would find the same certificate.
                if last or isinstance(error, ssl.SSLCertVerificationError):
                    detail = f"{self.url}: {error or type(error).__name__}"
                    problem = {"title": "the service cannot be reached", "detail": detail}
                    raise ServiceError(0, problem) from error
            else:
                values = _parsed(data)
                if status < 400:
                    return values
                again = status in AGAIN or values.get("code") == IN_PROGRESS
                if last or not again:
                    raise ServiceError(status, values)
                if retry.isdecimal():
                    wait = max(wait, float(retry))
            time.sleep(min(wait, LONGEST_WAIT))
        raise SasvError("the number of attempts must be at least 1")

    def _asked(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes, str]:
        connection = self._connection()
        if connection.sock is not None:
            try:
                return self._exchanged(connection, method, path, body, headers)
            except ConnectionError:
                # The service closes a connection that was idle for some seconds.
                connection.close()
        return self._exchanged(connection, method, path, body, headers)

    def _exchanged(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
    ) -> tuple[int, bytes, str]:
        # The service may have responded before it received the whole body.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request(method, self._parts.path.rstrip("/") + path, body, dict(headers))
        response = connection.getresponse()
        data = response.read()
        return response.status, data, response.headers.get("Retry-After", "")

    def _connection(self) -> http.client.HTTPConnection:
        found: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if found is None:
            host, port = self._parts.hostname or "", self._parts.port
            if self._tls is not None:
                found = http.client.HTTPSConnection(
                    host, port, timeout=self.timeout, context=self._tls
                )
            else:
                found = http.client.HTTPConnection(host, port, timeout=self.timeout)
            self._local.connection = found
        return found

    def _forget(self) -> None:
        """Close the connection of this thread; the next request opens another one."""
        found = getattr(self._local, "connection", None)
        if found is not None:
            found.close()
            self._local.connection = None

    def close(self) -> None:
        """Close the connection of this thread."""
        self._forget()


def _phrase(status: int) -> str:
    """Return a status in words, of an answer that something between here and the service gave."""
    return f"status {status} {http.client.responses.get(status, '')}".rstrip()


def _trusting(ca_file: str) -> ssl.SSLContext:
    """Return what checks the certificate of the service. SasvError if the file cannot be used."""
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        reason = error.strerror or str(error)
        raise SasvError(f"{ca_file}: cannot be used as certificates to trust ({reason})") from error


def _speaker(speaker: str) -> str:
    return f"/v1/speakers/{quote(speaker, safe='')}"


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        values = json.loads(data)
    except ValueError:
        values = None
    return values if isinstance(values, dict) else {}


def _send(socket: Any, data: str | bytes) -> None:
    """Send a message of a stream. Raises ServiceError if the service has ended the stream with a
    problem.
    """
    from websockets.exceptions import ConnectionClosed

    try:
        socket.send(data)
    except ConnectionClosed:
        while True:  # earlier messages of the service; ConnectionClosed after the last one
            _checked(socket.recv(0))


def _checked(message: str | bytes) -> dict[str, Any]:
    """Return a message of a stream. Raises ServiceError if it reports a problem."""
    values: dict[str, Any] = json.loads(message)
    if values["type"] == "problem":
        raise ServiceError(values["status"], values)
    return values
