"""Assembles the service from its parts."""

import logging
from functools import cache
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from sasv.core.errors import StorageError
from sasv.core.version import __version__
from sasv.runtime.embedder import Embedder
from sasv.service import metrics as counting
from sasv.service import page, routes, stream
from sasv.service.auth import RateLimiter, allowed
from sasv.service.batching import BatchingModel
from sasv.service.context import Service, service_of
from sasv.service.engine import Engine
from sasv.service.guard import Guard, request_id_of
from sasv.service.metrics import Metrics
from sasv.service.problems import Problem, internal, invalid
from sasv.service.schemas import Health
from sasv.service.settings import Settings
from sasv.service.state import ServiceState
from sasv.service.workers import Workers
from sasv.store import VoiceprintStore

logger = logging.getLogger("sasv")

DESCRIPTION = """Spoofing-aware speaker verification: enrol people, and decide whether a recording
is bona fide speech of the person who is claimed to speak. A decision is `accept`, `reject_speaker`,
`reject_spoof`, or `inconclusive`, with scores, thresholds, and reasons. Errors are
`application/problem+json`, and never a decision."""

CODES = {404: "not_found", 405: "method_not_allowed"}


def make_service(
    model: Embedder, store: VoiceprintStore, state: ServiceState, settings: Settings
) -> Service:
    """Make the parts of a service.

    Args:
        model: the exported model.
        store: the store of voiceprints.
        state: the store of API keys, speakers, and answers to idempotent requests.
        settings: the limits of the service.

    Raises:
        SasvError: the model has neither a calibration nor a threshold.
    """
    measured = Metrics(model.fingerprint)
    embedder = model
    if settings.batch > 1:
        seen = measured.batches.observe
        embedder = BatchingModel(model, settings.batch, settings.batch_wait, seen)
    engine = Engine(embedder, store, state, settings, measured)
    workers = Workers(settings, measured)
    limiter = RateLimiter(settings.rate, settings.burst)
    return Service(engine, state, settings, measured, workers, limiter)


def create_app(service: Service, log: bool = True) -> Guard:
    """Return the ASGI application of a service, which it closes at the end.

    Args:
        service: its parts (see ``make_service``).
        log: whether to log a line for each request.
    """
    return Guard(_routes(), service, log)


@cache
def _routes() -> FastAPI:
    """Return all routes. They find their service through the request."""
    app = FastAPI(
        title="sasv", version=__version__, description=DESCRIPTION, docs_url=None, redoc_url=None
    )
    app.include_router(routes.router)
    app.include_router(stream.router)
    app.include_router(page.router)
    _add_health(app)
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(StorageError, _on_storage)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(Exception, _on_anything)
    return app


def _add_health(app: FastAPI) -> None:
    @app.get("/health/live", tags=["service"])
    async def live() -> Health:
        """Report that the process responds."""
        return Health(status="alive")

    @app.get("/health/ready", tags=["service"])
    async def ready(request: Request) -> Health:
        """Report whether the service accepts requests. It does not while it is stopping, or if its
        store is not available or has a new key.
        """
        service = service_of(request)
        if service.stopping:
            raise Problem(
                503, "stopping", ("the service is stopping and only finishes accepted requests")
            )
        await service.workers.store(service.engine.store.check)
        return Health(status="ready")

    @app.get(
        "/metrics",
        tags=["service"],
        response_class=Response,
        dependencies=[Depends(allowed("metrics"))],
    )
    async def metrics(request: Request) -> Response:
        """Return counters and histograms in the Prometheus format."""
        return Response(service_of(request).metrics.text(), media_type=counting.MEDIA_TYPE)


def _answer(request: Request, problem: Problem) -> Response:
    service_of(request).metrics.problems.labels(problem.code).inc()
    return problem.response(request_id_of(request))


async def _on_problem(request: Request, error: Any) -> Response:
    return _answer(request, error)


async def _on_http(request: Request, error: Any) -> Response:
    noted = request.scope["state"].get("problem")
    if noted is not None:  # raised by the guard, and hidden by the parser of the body
        return _answer(request, noted)
    code = CODES.get(error.status_code, "invalid_request")
    problem = Problem(error.status_code, code, str(error.detail), dict(error.headers or {}))
    return _answer(request, problem)


async def _on_validation(request: Request, error: Any) -> Response:
    return _answer(request, invalid(error.errors()))


async def _on_storage(request: Request, error: Any) -> Response:
    logger.error("request %s: %s", request_id_of(request), error)
    text = "the store does not respond at the moment; try again later"
    return _answer(request, Problem(503, "unavailable", text, {"Retry-After": "2"}))


async def _on_disconnect(request: Request, error: Exception) -> Response:
    # The client is gone, so nobody reads the response.
    logger.info(
        "request %s: the client disconnected before its body was complete", request_id_of(request)
    )
    return Response(status_code=400)


async def _on_anything(request: Request, error: Exception) -> Response:
    # It is raised again, so that the guard logs it.
    return _answer(request, internal())
