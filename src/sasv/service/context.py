"""The parts of a running service. Routes find them through their request."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sasv.service.engine import Engine
from sasv.service.metrics import Metrics
from sasv.service.settings import Settings
from sasv.service.state import ServiceState
from sasv.service.workers import Workers

if TYPE_CHECKING:
    from sasv.service.auth import RateLimiter


@dataclass
class Service:
    """The parts of a running service.

    Attributes:
        engine: enrols and decides.
        state: API keys, speakers, and answers.
        settings: limits.
        metrics: counters and histograms.
        workers: threads for requests.
        limiter: limits the requests of each key.
        stopping: whether the service no longer accepts requests.
        open_streams: number of WebSocket streams.
    """

    engine: Engine
    state: ServiceState
    settings: Settings
    metrics: Metrics
    workers: Workers
    limiter: "RateLimiter"
    stopping: bool = False
    open_streams: int = field(default=0)

    def close(self) -> None:
        """Finish the requests in progress, and close the store."""
        self.workers.close()
        closing = getattr(self.engine.embedder, "close", None)
        if closing is not None:
            closing()
        self.engine.store.close()


def service_of(connection: Any) -> Service:
    """Return the service of a request or a WebSocket."""
    service: Service = connection.scope["state"]["service"]
    return service
