"""Encloses all routes: request identifiers, limits on bodies, checks of origins, security headers,
and a last handler for errors, so that no traceback reaches a client.
"""

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sasv.service.context import Service
from sasv.service.problems import Problem, internal

logger = logging.getLogger("sasv")

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
METHODS = (*SAFE_METHODS, "POST", "PUT", "PATCH", "DELETE")
MOST_DIGITS = 15
LINGER_SECONDS = 2.0
LINGER_BYTES = 64_000_000
"""Number of bytes of a refused body that are read and discarded, so that the client, which is still
sending, receives the response before the connection is closed.
"""

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": CONTENT_POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "microphone=(self), camera=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""Headers of every response, unless a route sets other values."""


def request_id_of(connection: Any) -> str:
    """Return the identifier of a request or a WebSocket."""
    found: str = connection.scope["state"]["request_id"]
    return found


class Guard:
    """An ASGI application that encloses the service's application."""

    def __init__(self, app: ASGIApp, service: Service, log: bool = True) -> None:
        """Wrap an application.

        Args:
            app: the application.
            service: its parts.
            log: whether to log a line for each request.
        """
        self.app = app
        self.service = service
        self.log = log
        self.buffered = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request or a WebSocket."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        given = headers.get(b"x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {}).update(request_id=request_id, service=self.service)
        problem = self._foreign(scope, headers)
        if scope["type"] == "websocket":
            if problem is not None:
                await send({"type": "websocket.close", "code": 1008, "reason": problem.code})
                return
            await self.app(scope, receive, send)
            return
        await _Exchange(self, scope, receive, send, headers).handle(problem)

    async def _live(self, receive: Receive, send: Send) -> None:
        """Close the service when the server stops."""
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.service.close()
        await send({"type": "lifespan.shutdown.complete"})

    def _foreign(self, scope: Scope, headers: dict[bytes, str]) -> Problem | None:
        """Return the reason for refusing a request from a browser that shows another site, or None
        to accept it.
        """
        host = headers.get(b"host", "")
        if self.service.settings.demo and _hostname(host) not in LOCAL_HOSTS:
            text = "the demonstration can only be used at localhost and 127.0.0.1"
            return Problem(403, "foreign_origin", text)
        origin = headers.get(b"origin")
        if origin is None or (scope["type"] == "http" and scope["method"] in SAFE_METHODS):
            return None
        if urlsplit(origin).netloc != host:
            return Problem(
                403, "foreign_origin", ("a page of another site may not make this request")
            )
        return None


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


class _Exchange:
    """One request and its response."""

    def __init__(
        self, guard: Guard, scope: Scope, receive: Receive, send: Send, headers: dict[bytes, str]
    ) -> None:
        self.guard = guard
        self.service = guard.service
        self.settings = guard.service.settings
        self.scope = scope
        self.raw_receive = receive
        self.raw_send = send
        self.headers = headers
        self.request_id: str = scope["state"]["request_id"]
        self.began = time.perf_counter()
        self.status = 0
        self.received = 0
        self.kept = 0
        self.body_done = not (
            headers.get(b"content-length", "0") != "0" or b"transfer-encoding" in headers
        )
        self.lingers = False
        self.problem: Problem | None = None

    async def handle(self, problem: Problem | None) -> None:
        """Respond to the request, with the problem if there is one."""
        try:
            problem = problem or self._refused()
            if problem is None:
                try:
                    await self.guard.app(self.scope, self.receive, self.send)
                except Problem as error:
                    problem = error
                except Exception:
                    logger.exception("request %s failed", self.request_id)
                    problem = internal()
            if problem is not None and not self.status:
                await self._answer(problem)
            if self.lingers:
                await self._linger()
        finally:
            self.guard.buffered -= self.kept
            self._record()

    def _refused(self) -> Problem | None:
        """Return the reason for refusing a body before reading it, or None."""
        text = self.headers.get(b"content-length")
        if text is None:
            return None
        if not text.isdecimal() or len(text) > MOST_DIGITS:
            return Problem(
                422, "invalid_request", ("the header Content-Length is not a valid length")
            )
        if int(text) > self.settings.max_bytes:
            return self._too_large()
        return None

    def _too_large(self) -> Problem:
        return Problem(
            413, "too_large", (f"the body may have at most {self.settings.max_bytes:,} bytes")
        )

    async def receive(self) -> Message:
        """Return the next part of the body to the application, within the limits."""
        if self.body_done:
            return await self.raw_receive()
        left = self.settings.body_timeout - (time.perf_counter() - self.began)
        try:
            async with asyncio.timeout(max(0.0, left)):
                message = await self.raw_receive()
        except TimeoutError:
            text = f"the body did not arrive within {self.settings.body_timeout:g} s"
            raise self._noted(Problem(408, "timeout", text)) from None
        if message["type"] == "http.request":
            count = len(message.get("body", b""))
            self.received += count
            self.kept += count
            self.guard.buffered += count
            self.body_done = not message.get("more_body", False)
            if self.received > self.settings.max_bytes:
                raise self._noted(self._too_large())
            if self.guard.buffered > self.settings.buffered_bytes:
                text = "other requests occupy the memory; try again later"
                raise self._noted(Problem(503, "busy", text, {"Retry-After": "1"}))
        return message

    def _noted(self, problem: Problem) -> Problem:
        # Parsers of bodies replace every error by one of their own, so the handlers look here.
        self.scope["state"]["problem"] = problem
        return problem

    async def send(self, message: Message) -> None:
        """Send a part of the response."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": self._completed(message.get("headers", []))}
        elif not message.get("more_body", False) and not self.body_done:
            self.lingers = True
            message = {**message, "more_body": True}
        async with asyncio.timeout(self.settings.body_timeout):
            await self.raw_send(message)

    def _completed(self, given: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        headers = list(given)
        names = {name.lower() for name, _ in headers}
        for name, value in HEADERS.items():
            if name.encode() not in names:
                headers.append((name.encode(), value.encode()))
        headers.append((b"x-request-id", self.request_id.encode()))
        if not self.body_done:
            headers.append((b"connection", b"close"))
        return headers

    async def _answer(self, problem: Problem) -> None:
        self.service.metrics.problems.labels(problem.code).inc()
        response = problem.response(self.request_id)
        await response(self.scope, self.receive, self.send)

    async def _linger(self) -> None:
        """Continue to read for a moment, and close the connection."""
        read = 0
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                while read < LINGER_BYTES:
                    message = await self.raw_receive()
                    read += len(message.get("body", b""))
                    if message["type"] != "http.request" or not message.get("more_body", False):
                        break
        except TimeoutError:
            pass
        await self.raw_send({"type": "http.response.body", "body": b"", "more_body": False})

    def _record(self) -> None:
        seconds = time.perf_counter() - self.began
        route = getattr(self.scope.get("route"), "path", "other")
        method = self.scope["method"] if self.scope["method"] in METHODS else "other"
        metrics = self.service.metrics
        metrics.latency.labels(route, method, str(self.status)).observe(seconds)
        if self.guard.log:
            # The template of the route, so that the log contains no identifier of a person.
            logger.info(
                "%s %s %s %.0f ms, request %s",
                method,
                route,
                self.status,
                1000 * seconds,
                self.request_id,
            )
