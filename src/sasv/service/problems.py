"""Errors as clients see them: ``application/problem+json`` (RFC 9457)."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"

MOST_ERRORS = 5

TITLES = {
    "unauthenticated": "An API key is needed",
    "forbidden": "The API key does not allow this",
    "foreign_origin": "The request comes from another site",
    "not_found": "Not found",
    "method_not_allowed": "The method is not allowed here",
    "unknown_speaker": "The speaker is unknown",
    "speaker_exists": "The speaker exists already",
    "not_enrolled": "The speaker is not enrolled",
    "opted_out": "The speaker opted out",
    "duplicate_voice": "The voice is already enrolled",
    "model_changed": "The voiceprint was made by another model",
    "enrolment_full": "The voiceprint contains the maximum number of recordings",
    "invalid_request": "The request is not valid",
    "unsupported_media_type": "The type of the body is not supported",
    "unsupported_format": "This installation cannot read the audio format",
    "unreadable_audio": "The audio cannot be read",
    "unusable_recording": "The recording cannot be used",
    "too_large": "The body is too large",
    "too_long": "The recording is too long",
    "timeout": "The body did not arrive in time",
    "rate_limited": "Too many requests",
    "busy": "The service is busy",
    "stopping": "The service is stopping",
    "unavailable": "The store cannot be used at the moment",
    "conflict": "The request contradicts another one",
    "idempotency_conflict": "The idempotency key belongs to another request",
    "in_progress": "The same request is in progress",
    "not_supported": "The model or the installation cannot do this",
    "internal": "The service failed",
}


class Problem(Exception):
    """An error that is reported to the client.

    Attributes:
        status: HTTP status of the response.
        code: identifies the problem for programs; a key of TITLES.
        detail: explains the problem to people in one sentence.
        more: further members of the body, as plain values.
        headers: headers of the response.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = headers or {}
        self.more = more

    def body(self, request_id: str) -> dict[str, Any]:
        """Return the body of the response."""
        return {
            "type": f"urn:sasv:problem:{self.code}",
            "title": TITLES[self.code],
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "request_id": request_id,
            **self.more,
        }

    def response(self, request_id: str) -> Response:
        """Return the response."""
        content = json.dumps(self.body(request_id), ensure_ascii=False, allow_nan=False)
        return Response(content, self.status, dict(self.headers), MEDIA_TYPE)


def internal() -> Problem:
    """Return the problem for an unexpected error, which the log describes."""
    return Problem(
        500,
        "internal",
        (
            "an unexpected error; the log of the service describes it under the identifier of this "
            "request"
        ),
    )


def invalid(errors: Iterable[Mapping[str, Any]]) -> Problem:
    """Return the problem for invalid values, as reported by pydantic. The values are not repeated,
    because they may identify a person.
    """
    found = [{"place": ".".join(map(str, one["loc"])), "text": one["msg"]} for one in errors]
    text = "; ".join(f"{one['place']}: {one['text']}" for one in found[:MOST_ERRORS])
    return Problem(422, "invalid_request", text, errors=found[:MOST_ERRORS])
