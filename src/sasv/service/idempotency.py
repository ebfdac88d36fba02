"""Requests that may be repeated: the first response is stored and returned again."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from pydantic import BaseModel

from sasv.service.context import Service, service_of
from sasv.service.guard import request_id_of
from sasv.service.keys import Principal
from sasv.service.problems import MEDIA_TYPE, Problem
from sasv.service.state import Answer
from sasv.service.uploads import Upload
from sasv.service.work import Work
from sasv.service.workers import Final, Step

HEADER = "idempotency-key"
REPLAYED = {"Idempotency-Replayed": "true"}
VALID = re.compile(r"[\x21-\x7e]{1,200}")

AGAIN = (408, 413, 425, 429)
"""Errors that do not concern the request itself, so that it may be repeated with the same key."""


async def once(
    request: Request,
    principal: Principal,
    upload: Upload,
    values: Mapping[str, Any],
    speaker: str,
    status: int,
    kind: type[BaseModel],
    work: Work,
) -> Response:
    """Respond to a request, with the first response if it was made before with the same idempotency
    key.

    Args:
        request: the request, possibly with the header ``Idempotency-Key``.
        principal: the holder of the API key; each API key has its own idempotency keys.
        upload: the body of the request.
        values: the parameters of the request.
        speaker: the speaker to whom it refers; the response is deleted together with the speaker.
        status: status of a successful response.
        kind: model of the body of a successful response.
        work: what the request does.

    Raises:
        Problem: whatever ``work`` raises, or the idempotency key belongs to another request.
    """
    name = request.headers.get(HEADER)
    if name is not None and not VALID.fullmatch(name):
        text = "an idempotency key must consist of 1 to 200 visible ASCII characters"
        raise Problem(422, "invalid_request", text)
    service = service_of(request)
    digest = "" if name is None else upload.digest(request, values)
    made = _Request(service, principal, name, digest, speaker, status, kind, work)
    try:
        found = await service.workers.follow(made.steps())
        if isinstance(found, Answer):
            return _again(found, digest)
        body = found if made.stores else made.body(found)
    except BaseException as error:
        if made.claimed:
            await service.workers.store(made.fail, error, request_id_of(request))
        raise
    if work.count is not None:
        work.count(body)
    return answer(body, status)


def _again(known: Answer, digest: str) -> Response:
    """Return the response to a request that was made before. Raises Problem if there is none."""
    if known.digest != digest:
        text = "this idempotency key was used for another request"
        raise Problem(422, "idempotency_conflict", text)
    if known.status is None:
        text = "the same request is still in progress; try again later"
        raise Problem(409, "in_progress", text, {"Retry-After": "1"})
    return answer(known.body, known.status, REPLAYED)


@dataclass
class _Request:
    """What a request does with the store, before and after it is computed.

    Attributes:
        digest: of the content of the request; empty without an idempotency key.
        claimed: whether this request has claimed its idempotency key, so that others with the same
            key wait for its response.
    """

    service: Service
    principal: Principal
    name: str | None
    digest: str
    speaker: str
    status: int
    kind: type[BaseModel]
    work: Work
    claimed: bool = False

    @property
    def stores(self) -> bool:
        """Whether something is stored at the end."""
        return self.name is not None or self.work.record is not None

    def steps(self) -> list[Step]:
        """Return the steps of the request, each in its own thread."""
        steps = []
        if self.name is not None or self.work.read is not None:
            steps.append(Step(self.begin))
        if self.work.compute is not None:
            steps.append(Step(self.work.compute, computes=True))
        if self.stores:
            steps.append(Step(self.finish))
        return steps

    def begin(self, _: None) -> Any:
        """Claim the idempotency key, and read what the work needs; return the latter, or the record
        of the request if it was made before.
        """
        if self.name is not None:
            key, tenant = self.principal.key, self.principal.tenant
            lifetime = self.service.settings.answer_seconds
            known = self.service.state.claim(
                key, self.name, self.digest, tenant, self.speaker, lifetime
            )
            if known is not None:
                return Final(known)
            self.claimed = True
        return None if self.work.read is None else self.work.read()

    def finish(self, found: Any) -> Any:
        """Record what was computed together with the response, or neither; return its body."""
        with self.service.state.database.transaction():
            body = self.body(found if self.work.record is None else self.work.record(found))
            self._keep(self.status, body)
        return body

    def body(self, values: Any) -> Any:
        """Return checked values for the body of the response."""
        return self.kind.model_validate(values).model_dump(mode="json")

    def fail(self, error: BaseException, request_id: str) -> None:
        """Store the error as the response if the request would fail again, or else allow that it is
        repeated.
        """
        if isinstance(error, Problem) and error.status < 500 and error.status not in AGAIN:
            self._keep(error.status, error.body(request_id))
        elif self.name is not None:
            self.service.state.release(self.principal.key, self.name)

    def _keep(self, status: int, body: Any) -> None:
        if self.claimed and self.name is not None:
            answers = self.service.settings.answers
            self.service.state.keep_answer(self.principal.key, self.name, status, body, answers)


def answer(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return plain values as a response."""
    kind = "application/json" if status < 400 else MEDIA_TYPE
    content = json.dumps(body, ensure_ascii=False, allow_nan=False)
    return Response(content, status, headers, kind)
