"""Requests that may be repeated: the first response is stored and returned again."""

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request
from fastapi.responses import Response

from sasv.service.context import service_of
from sasv.service.guard import request_id_of
from sasv.service.keys import Principal
from sasv.service.problems import MEDIA_TYPE, Problem

HEADER = "idempotency-key"
REPLAYED = {"Idempotency-Replayed": "true"}
VALID = re.compile(r"[\x21-\x7e]{1,200}")

AGAIN = (408, 413, 425, 429)
"""Errors that do not concern the request itself, so that it may be repeated with the same key."""


async def once(
    request: Request,
    principal: Principal,
    digest: str,
    speaker: str,
    status: int,
    work: Callable[[], Awaitable[Any]],
) -> Response:
    """Respond to a request, with the first response if it was made before with the same idempotency
    key.

    Args:
        request: the request, possibly with the header ``Idempotency-Key``.
        principal: the holder of the API key; each API key has its own idempotency keys.
        digest: digest of the content of the request.
        speaker: the speaker to whom it refers; the response is deleted together with the speaker.
        status: status of a successful response.
        work: returns the body of the response, as plain values.

    Raises:
        Problem: whatever ``work`` raises, or the idempotency key belongs to another request.
    """
    name = request.headers.get(HEADER)
    if name is None:
        return answer(await work(), status)
    if not VALID.fullmatch(name):
        text = "an idempotency key must consist of 1 to 200 visible ASCII characters"
        raise Problem(422, "invalid_request", text)
    service = service_of(request)
    store = service.workers.store
    state, settings = service.state, service.settings
    known = await store(
        state.claim,
        principal.key,
        name,
        digest,
        principal.tenant,
        speaker,
        settings.answer_seconds,
    )
    if known is not None:
        if known.digest != digest:
            text = "this idempotency key was used for another request"
            raise Problem(422, "idempotency_conflict", text)
        if known.status is None:
            text = "the same request is still in progress; try again later"
            raise Problem(409, "in_progress", text, {"Retry-After": "1"})
        return answer(known.body, known.status, REPLAYED)
    try:
        body = await work()
    except Problem as problem:
        if problem.status < 500 and problem.status not in AGAIN:
            failed = problem.body(request_id_of(request))
            await store(
                state.keep_answer, principal.key, name, problem.status, failed, settings.answers
            )
        else:
            await store(state.release, principal.key, name)
        raise
    except BaseException:
        await store(state.release, principal.key, name)
        raise
    await store(state.keep_answer, principal.key, name, status, body, settings.answers)
    return answer(body, status)


def answer(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return plain values as a response."""
    kind = "application/json" if status < 400 else MEDIA_TYPE
    content = json.dumps(body, ensure_ascii=False, allow_nan=False)
    return Response(content, status, headers, kind)
