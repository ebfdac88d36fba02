"""Reads the audio of a request, which is the body itself or a file in a form."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from sasv.service.problems import Problem

FILE = "file"
"""Field of a form that contains the audio."""

MOST_FIELDS = 8
LONGEST_FIELD = 1000
FORM = "multipart/form-data"
NOT_AUDIO = ("application/json", "application/x-www-form-urlencoded", "text/")

AUDIO_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": (
            "An audio file in any supported format, which is detected from its content. Send "
            "either the bytes themselves, or a form with the field `file`, which may also contain "
            "the query parameters."
        ),
        "content": {
            "audio/*": {"schema": {"type": "string", "format": "binary"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            FORM: {
                "schema": {
                    "type": "object",
                    "required": [FILE],
                    "properties": {FILE: {"type": "string", "format": "binary"}},
                    "additionalProperties": {"type": "string"},
                }
            },
        },
    }
}
"""The OpenAPI description of such a body."""


@dataclass(frozen=True)
class Upload:
    """The audio of a request.

    Attributes:
        data: the bytes of the file.
        fields: the other fields of the form.
    """

    data: bytes
    fields: Mapping[str, str]

    def text(self, name: str, default: str | None = None) -> str | None:
        """Return a field of the form, or else the value from the query."""
        return self.fields.get(name, default)

    def digest(self, request: Request, values: Mapping[str, Any]) -> str:
        """Return a digest of what is requested and of the audio."""
        asked = [request.method, request.url.path, sorted(values.items())]
        return hashlib.sha256(json.dumps(asked).encode() + b"\n" + self.data).hexdigest()


async def read_upload(request: Request, known: tuple[str, ...] = ()) -> Upload:
    """Read the audio of a request.

    Args:
        request: the request; its body has not been read yet.
        known: fields that a form may have besides the file.

    Raises:
        Problem: the body has another type, or the form has other fields.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != FORM:
        if kind.startswith(NOT_AUDIO):
            raise Problem(
                415,
                "unsupported_media_type",
                f"send audio, or a form with the field '{FILE}', not {kind}",
            )
        return Upload(await request.body(), {})
    try:
        form = await request.form(max_files=1, max_fields=MOST_FIELDS, max_part_size=LONGEST_FIELD)
    except HTTPException as error:
        raise Problem(422, "invalid_request", f"the form is invalid: {error.detail}") from error
    try:
        fields: dict[str, str] = {}
        file: UploadFile | None = None
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                if name != FILE:
                    raise Problem(422, "invalid_request", f"the file must be in the field '{FILE}'")
                file = value
            elif name not in known or name in fields:
                raise Problem(
                    422,
                    "invalid_request",
                    f"the form has the field '{name[:50]}'; only {', '.join((FILE, *known))} "
                    "are allowed, each once",
                )
            else:
                fields[name] = value
        if file is None:
            raise Problem(422, "invalid_request", f"the form has no file in the field '{FILE}'")
        return Upload(await file.read(), fields)
    finally:
        await form.close()
