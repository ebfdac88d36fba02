"""The routes below ``/v1``."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response
from pydantic import ValidationError

from sasv.service.auth import Credentials, admitted, allowed
from sasv.service.context import service_of
from sasv.service.idempotency import once
from sasv.service.keys import NAME, Principal
from sasv.service.problems import MEDIA_TYPE, Problem, invalid
from sasv.service.schemas import (
    LABEL_PATTERN,
    PATTERN,
    About,
    Deletion,
    Detection,
    Enrolment,
    Identification,
    NewSpeaker,
    ProblemBody,
    Speaker,
    Speakers,
    Verification,
)
from sasv.service.uploads import AUDIO_BODY, Upload, read_upload
from sasv.service.work import Work

MOST_CANDIDATES = 20
MOST_SPEAKERS = 1000

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": text,
        "content": {MEDIA_TYPE: {"schema": ProblemBody.model_json_schema()}},
    }
    for status, text in (
        (401, "no valid API key"),
        (403, "the API key does not allow it"),
        (422, "the request is not valid"),
        (429, "too many requests"),
        (503, "the service is busy; try again later"),
    )
}
KEY_HEADER: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": (
        "1 to 200 visible ASCII characters. For a day, a repeated request with the same key "
        "returns the first response; a different request with the same key is an error"
    ),
    "schema": {"type": "string", "maxLength": 200},
}
JSON_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": NewSpeaker.model_json_schema()}},
    }
}
AUDIO: dict[str, Any] = AUDIO_BODY | {"parameters": [KEY_HEADER]}

router = APIRouter(prefix="/v1", responses=PROBLEMS)

SpeakerId = Annotated[str, Path(pattern=PATTERN, description="identifier of the speaker")]
Label = Annotated[
    str | None,
    Query(pattern=LABEL_PATTERN, description="selects one of the speaker's voiceprints"),
]


@router.get("/about", tags=["service"])
async def about(request: Request, credentials: Credentials) -> About:
    """Return the model, the limits, and what the API key allows."""
    service = service_of(request)
    principal = await admitted(service, credentials.credentials if credentials else "")
    return About(**service.engine.about(), scopes=sorted(principal.scopes))


@router.post(
    "/speakers",
    tags=["speakers"],
    status_code=201,
    response_model=Speaker,
    openapi_extra={"parameters": [KEY_HEADER]} | JSON_BODY,
)
async def create_speaker(
    request: Request, principal: Annotated[Principal, Depends(allowed("enrol"))]
) -> Response:
    """Create a speaker, who can be enrolled afterwards."""
    service = service_of(request)
    # Read here rather than by FastAPI, which reads bodies before it checks the API key.
    try:
        speaker = NewSpeaker.model_validate_json(await request.body())
    except ValidationError as error:
        raise invalid(error.errors()) from None

    named = speaker.id or ""
    work = Work(
        record=lambda _: service.engine.create_speaker(
            principal.tenant, named, speaker.consent, speaker.expires_in_days
        )
    )
    upload = Upload(speaker.model_dump_json().encode(), {})
    return await once(request, principal, upload, {}, named, 201, Speaker, work)


@router.get("/speakers", tags=["speakers"])
async def list_speakers(
    request: Request,
    principal: Annotated[Principal, Depends(allowed("read"))],
    after: Annotated[
        str, Query(max_length=64, description=("the value of ``next`` of the preceding page"))
    ] = (""),
    limit: Annotated[int, Query(ge=1, le=MOST_SPEAKERS)] = 100,
) -> Speakers:
    """Return the identifiers of the speakers of the tenant, in order."""
    service = service_of(request)
    return Speakers(
        **await service.workers.store(service.engine.speakers, principal.tenant, after, limit)
    )


@router.get("/speakers/{speaker}", tags=["speakers"])
async def read_speaker(
    request: Request,
    speaker: SpeakerId,
    principal: Annotated[Principal, Depends(allowed("read"))],
) -> Speaker:
    """Return a speaker and the speaker's voiceprints, without embeddings."""
    service = service_of(request)
    return Speaker(**await service.workers.store(service.engine.speaker, principal.tenant, speaker))


@router.get("/speakers/{speaker}/export", tags=["speakers"])
async def export_speaker(
    request: Request,
    speaker: SpeakerId,
    principal: Annotated[Principal, Depends(allowed("delete"))],
) -> dict[str, Any]:
    """Return everything that is stored about a speaker, with embeddings and the audit trail."""
    service = service_of(request)
    return await service.workers.store(service.engine.export_speaker, principal.tenant, speaker)


@router.delete("/speakers/{speaker}", tags=["speakers"])
async def delete_speaker(
    request: Request,
    speaker: SpeakerId,
    principal: Annotated[Principal, Depends(allowed("delete"))],
    opt_out: Annotated[bool, Query(description="refuse this speaker from now on")] = False,
) -> Deletion:
    """Delete a speaker with all voiceprints, and return the receipt."""
    service = service_of(request)
    return Deletion(
        **await service.workers.store(
            service.engine.delete_speaker, principal.tenant, speaker, opt_out
        )
    )


@router.post(
    "/speakers/{speaker}/enrolments",
    tags=["speakers"],
    status_code=201,
    response_model=Enrolment,
    openapi_extra=AUDIO,
)
async def enrol(
    request: Request,
    speaker: SpeakerId,
    principal: Annotated[Principal, Depends(allowed("enrol"))],
    label: Label = None,
    replace: Annotated[
        bool, Query(description=("replace the voiceprint instead of adding to it"))
    ] = False,
    unique: Annotated[
        bool, Query(description="refuse a voice that is already enrolled as another speaker")
    ] = False,
) -> Response:
    """Add a recording to a voiceprint of the speaker, or begin a new one."""
    service = service_of(request)
    service.workers.check()
    upload = await read_upload(request, ("label", "replace", "unique"))
    label = _name("label", upload.text("label", label) or "", empty=True)
    replace = _switch("replace", upload.text("replace"), replace)
    unique = _switch("unique", upload.text("unique"), unique)

    work = service.engine.enrolment(principal.tenant, speaker, label, upload.data, replace, unique)
    values = {"label": label, "replace": replace, "unique": unique}
    return await once(request, principal, upload, values, speaker, 201, Enrolment, work)


@router.post("/verify", tags=["decisions"], response_model=Verification, openapi_extra=AUDIO)
async def verify(
    request: Request,
    principal: Annotated[Principal, Depends(allowed("verify"))],
    speaker: Annotated[
        str | None, Query(pattern=PATTERN, description="the claimed speaker; required")
    ] = None,
    label: Label = None,
) -> Response:
    """Decide whether a recording is bona fide speech of the claimed speaker."""
    service = service_of(request)
    service.workers.check()
    upload = await read_upload(request, ("speaker", "label"))
    claimed = _name("speaker", upload.text("speaker", speaker) or "")
    label = upload.text("label", label)
    if label is not None:
        label = _name("label", label, empty=True)

    work = service.engine.verification(principal.tenant, claimed, label, upload.data)
    values = {"speaker": claimed, "label": label}
    return await once(request, principal, upload, values, claimed, 200, Verification, work)


@router.post("/identify", tags=["decisions"], response_model=Identification, openapi_extra=AUDIO)
async def identify(
    request: Request,
    principal: Annotated[Principal, Depends(allowed("identify"))],
    top: Annotated[
        int, Query(ge=1, le=MOST_CANDIDATES, description=("maximum number of candidates"))
    ] = 5,
) -> Response:
    """Return the enrolled speakers who are most similar to a recording, each with a decision."""
    service = service_of(request)
    service.workers.check()
    upload = await read_upload(request, ("top",))
    text = upload.text("top")
    if text is not None:
        if not text.isdecimal() or not 1 <= int(text[:9]) <= MOST_CANDIDATES:
            raise Problem(422, "invalid_request", f"top must be from 1 to {MOST_CANDIDATES}")
        top = int(text)

    work = service.engine.identification(principal.tenant, upload.data, top)
    values = {"top": top}
    return await once(request, principal, upload, values, "", 200, Identification, work)


@router.post("/detect", tags=["decisions"], response_model=Detection, openapi_extra=AUDIO)
async def detect(
    request: Request, principal: Annotated[Principal, Depends(allowed("detect"))]
) -> Response:
    """Decide whether a recording is bona fide or spoofed speech, regardless of the speaker."""
    service = service_of(request)
    service.workers.check()
    upload = await read_upload(request)

    work = service.engine.detection(upload.data)
    return await once(request, principal, upload, {}, "", 200, Detection, work)


@router.post(
    "/copy",
    tags=["demonstration"],
    openapi_extra=AUDIO_BODY,
    response_class=Response,
    responses={200: {"content": {"audio/wav": {}}, "description": "the copy"}},
)
async def copy(
    request: Request, principal: Annotated[Principal, Depends(allowed("copy"))]
) -> Response:
    """Return a copy of a recording made with the vocoder WORLD, to show that it is rejected."""
    service = service_of(request)
    service.workers.check()
    upload = await read_upload(request)
    wave = await service.workers.compute(service.engine.copy, upload.data)
    return Response(wave, media_type="audio/wav")


def _name(what: str, value: str, empty: bool = False) -> str:
    """Return a valid identifier. Raises Problem for anything else."""
    if not NAME.fullmatch(value) and not (empty and not value):
        raise Problem(
            422,
            "invalid_request",
            f"{what}: use 1 to 64 letters, digits, and .:_@-, beginning with a letter or a digit",
        )
    return value


def _switch(what: str, text: str | None, default: bool) -> bool:
    """Return true or false. Raises Problem for any other text."""
    if text is None:
        return default
    if text not in ("true", "false"):
        raise Problem(422, "invalid_request", f"{what} must be true or false")
    return text == "true"
