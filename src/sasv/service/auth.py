"""Authorisation with API keys, and limits on the rate of requests."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from sasv.service.context import Service, service_of
from sasv.service.keys import DEMO, Principal, parts_of
from sasv.service.problems import Problem

BEARER = HTTPBearer(
    auto_error=False,
    scheme_name="API key",
    description="An API key that `sasv keys create` made: `Authorization: Bearer sasv_...`",
)

Credentials = Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)]


def allowed(scope: str) -> Callable[..., Awaitable[Principal]]:
    """Return the dependency of a route that requires a key with this scope."""

    async def principal(request: Request, credentials: Credentials) -> Principal:
        service = service_of(request)
        return await admitted(service, credentials.credentials if credentials else "", scope)

    return principal


async def admitted(service: Service, key: str, scope: str = "") -> Principal:
    """Return the principal of an API key.

    Args:
        service: the service, which knows the keys.
        key: the API key as it was sent.
        scope: the required scope; by default, any key is accepted.

    Raises:
        Problem: the key is missing, invalid, or revoked, lacks the scope, or was used too often.
    """
    found = await authenticated(service, key)
    service.limiter.take(found.key)
    if scope and scope not in found.scopes:
        raise Problem(403, "forbidden", f"this request needs an API key with the scope {scope}")
    return found


async def authenticated(service: Service, key: str) -> Principal:
    """Return the principal of an API key. Raises Problem if the key is not valid."""
    if service.settings.demo and not key:
        return DEMO
    challenge = {"WWW-Authenticate": 'Bearer realm="sasv"'}
    if not key:
        text = "send an API key: Authorization: Bearer sasv_..."
        raise Problem(401, "unauthenticated", text, challenge)
    parts = parts_of(key)
    kept = None
    if parts is not None:
        kept = await service.workers.store(service.state.key, parts[0])
    if parts is None or kept is None or not kept.matches(parts[1]):
        raise Problem(401, "unauthenticated", "the API key is not valid", challenge)
    return kept.principal


@dataclass
class Bucket:
    """The remaining requests of a key."""

    left: float
    time: float


class RateLimiter:
    """Limits the requests of each key, on average and in bursts."""

    def __init__(
        self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin with full buckets.

        Args:
            rate: maximum number of requests per second; 0 sets no limit.
            burst: maximum number of requests in a burst.
            clock: returns the time in seconds.
        """
        self.rate = rate
        self.burst = burst
        self.clock = clock
        self._buckets: dict[str, Bucket] = {}

    def take(self, key: str) -> None:
        """Count a request. Raises Problem if there were too many."""
        if not self.rate:
            return
        now = self.clock()
        bucket = self._buckets.setdefault(key, Bucket(float(self.burst), now))
        bucket.left = min(float(self.burst), bucket.left + (now - bucket.time) * self.rate)
        bucket.time = now
        if bucket.left < 1:
            wait = str(max(1, round((1 - bucket.left) / self.rate)))
            text = f"more than {self.rate:g} requests per second were made with this API key"
            raise Problem(429, "rate_limited", text, {"Retry-After": wait})
        bucket.left -= 1
