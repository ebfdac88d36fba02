"""Runs the application with uvicorn, protected against clients that send nothing or send slowly."""

import asyncio
import contextlib
import gc
import logging
import socket
import ssl
import sys
from collections import OrderedDict
from dataclasses import dataclass
from types import FrameType
from typing import Any, ClassVar

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sasv.core.errors import SasvError
from sasv.service.context import Service
from sasv.service.guard import Guard
from sasv.service.stream import LARGEST_MESSAGE

logger = logging.getLogger("sasv")

KEEP_ALIVE_SECONDS = 15
SWITCH_SECONDS = 0.0005
"""After this time, a thread that computes leaves Python's lock to one that waits for it, so that
the event loop and the store, which need it for moments, do not wait for milliseconds.
"""

LARGEST_HEADERS = 16_384
"""Maximum number of bytes of the address, the headers, and the trailers of a request."""

FILES_BESIDE_CONNECTIONS = 200
"""Number of open files that are not connections: the store, libraries, recordings."""


@dataclass(frozen=True)
class Address:
    """The address on which the service listens.

    Attributes:
        host: name or address.
        port: number of the port; 0 chooses a free one.
        certificate: file of the TLS certificate and its chain; "" without TLS.
        private_key: file of the private key of the certificate.
        connections: maximum number of open connections.
        header_timeout: seconds within which the headers of a request must arrive.
        grace: seconds to wait for accepted requests when the service stops.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    certificate: str = ""
    private_key: str = ""
    connections: int = 1000
    header_timeout: float = 10.0
    grace: int = 30


def guarded_protocol(connections: int, header_timeout: float) -> type[HttpToolsProtocol]:
    """Return the protocol class of connections, with a limit on their number: if it is reached, a
    new connection replaces the one that has been idle for longest.
    """

    class GuardedProtocol(HttpToolsProtocol):
        """A connection on which headers must arrive in time, and be few.

        An error that is raised while the parser reports a part is answered with status 400.

        Attributes:
            idle: the connections without a request, the one that has been idle for longest first.
            deadline: closes the connection if no headers have arrived by then.
            head: number of bytes of the headers of the current request.
            pending: number of bytes since the parser last reported a part of the request. It keeps
                the name and the value of a header until they are complete.
        """

        idle: ClassVar["OrderedDict[GuardedProtocol, None]"] = OrderedDict()
        deadline: asyncio.TimerHandle | None = None
        head = 0
        pending = 0

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            """Begin to wait for headers."""
            super().connection_made(transport)
            self.idle[self] = None
            if len(self.connections) > connections:
                oldest, _ = self.idle.popitem(last=False)
                oldest.transport.abort()
            self._update()

        def connection_lost(self, exc: Exception | None) -> None:
            """Remove the connection from the list."""
            self._forget()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            """Receive data."""
            self.pending += len(data)
            super().data_received(data)
            if self.pending > LARGEST_HEADERS and not self._elsewhere():
                self.send_400_response("The headers of the request are too large.")
            self._update()

        def on_message_begin(self) -> None:
            """Begin a request."""
            super().on_message_begin()
            self.head = 0

        def on_url(self, url: bytes) -> None:
            """Receive a part of the address."""
            self._count(len(url))
            super().on_url(url)

        def on_header(self, name: bytes, value: bytes) -> None:
            """Receive a header or a trailer."""
            self._count(len(name) + len(value))
            super().on_header(name, value)

        def on_headers_complete(self) -> None:
            """Begin to answer."""
            self.pending = 0
            hosts = sum(name == b"host" for name, _ in self.headers)
            if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):
                raise ValueError("the header Host must be there once")
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            """Receive a part of the body."""
            self.pending = 0
            super().on_body(body)

        def on_message_complete(self) -> None:
            """End a request."""
            self.pending = 0
            super().on_message_complete()

        def on_response_complete(self) -> None:
            """Wait for the next request."""
            super().on_response_complete()
            self.idle[self] = None
            self.idle.move_to_end(self)

        def handle_websocket_upgrade(self) -> None:
            """Hand the connection over to the WebSocket protocol."""
            self._forget()
            super().handle_websocket_upgrade()

        def _count(self, size: int) -> None:
            self.pending = 0
            self.head += size
            if self.head > LARGEST_HEADERS:
                raise ValueError("the headers are too large")

        def _elsewhere(self) -> bool:
            return self.transport.is_closing() or self.transport.get_protocol() is not self

        def _update(self) -> None:
            computing = self.cycle is not None and not self.cycle.response_complete
            if self._elsewhere() or computing:
                self._forget()
            elif self.deadline is None:
                self.deadline = self.loop.call_later(header_timeout, self.transport.abort)

        def _forget(self) -> None:
            self.idle.pop(self, None)
            if self.deadline is not None:
                self.deadline.cancel()
                self.deadline = None

    return GuardedProtocol


class Server(uvicorn.Server):
    """A server that reports at once that it is stopping, and ends without an error."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop after accepted requests; stop immediately at the second signal."""
        self.service.stopping = True
        self.force_exit = self.should_exit
        self.should_exit = True


def make_server(app: Guard, address: Address) -> Server:
    """Return the server of an application.

    Raises:
        SasvError: certificate or key cannot be used.
    """
    if address.certificate:
        _check_certificate(address.certificate, address.private_key)
    protocol = guarded_protocol(address.connections, address.header_timeout)
    config = uvicorn.Config(
        app,
        http=protocol,
        loop="asyncio",
        ws="websockets-sansio",
        ws_max_size=LARGEST_MESSAGE,
        ws_per_message_deflate=False,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=address.grace,
        ssl_certfile=address.certificate or None,
        ssl_keyfile=address.private_key or None,
    )
    config.load()
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    return Server(config, app.service)


def _check_certificate(certificate: str, private_key: str) -> None:
    """Raise SasvError if a certificate and its key cannot be used.

    This includes a key with a password, for which OpenSSL would ask at the terminal.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, private_key, password=lambda: b"-")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        raise SasvError(
            f"{certificate}, {private_key}: the certificate and its key cannot be used ({reason}); "
            "--tls-certificate and --tls-key need PEM files, and the key may not have a password"
        ) from error


def listening(address: Address) -> socket.socket:
    """Return the socket of an address. Raises SasvError if it is in use or does not belong to this
    machine.
    """
    try:
        family = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0][0]
        bound = socket.create_server((address.host, address.port), family=family, backlog=2048)
        # Connections inherit this. asyncio sets it only for sockets that were made for TCP by name,
        # and without it, each answer waits 40 ms for the client to acknowledge its header.
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return bound
    except OSError as error:
        raise SasvError(
            f"{address.host}:{address.port}: cannot listen on this address "
            f"({error.strerror or error}); choose another --host or --port"
        ) from error


def run(server: Server, bound: socket.socket, connections: int) -> None:
    """Serve until a signal stops the service."""
    allow_files(connections + FILES_BESIDE_CONNECTIONS)
    scheme = "https" if server.config.is_ssl else "http"
    host, port = bound.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    logger.info("serving at %s://%s:%s", scheme, shown, port)
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.freeze()  # what exists now stays, so that it need not be searched for garbage again
    server.run(sockets=[bound])
    logger.info("stopped")


def allow_files(wanted: int) -> None:
    """Raise the limit of open files of this process, as far as the system allows."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most: Any = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
