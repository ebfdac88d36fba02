"""Bodies of requests and responses, with examples. The OpenAPI description is made from them."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from sasv.service.keys import NAME

PATTERN = f"^{NAME.pattern}$"
LABEL_PATTERN = f"^({NAME.pattern})?$"

Identifier = Annotated[str, Field(pattern=PATTERN, examples=["customer-4711"])]

MODEL = "3f9c1a52d1c04d4e9b7a"
RECORDING: dict[str, Any] = {
    "recording": "recording",
    "seconds_compared": 4.1,
    "net_speech": 3.62,
    "speech_share": 0.81,
    "level_dbfs": -24.3,
    "snr_db": 31.5,
    "clipped_share": 0.0,
    "bandwidth_hz": 7750,
}
VOICEPRINT: dict[str, Any] = {
    "id": "0b8e1c0e4f1d4b0a9d5d6f0f3f6e2a11",
    "label": "phone",
    "recordings": 2,
    "net_speech": 7.9,
    "percentage": 79.0,
    "sufficient": True,
    "current_model": True,
    "quality": [RECORDING, RECORDING],
    "created": 1790000000.0,
    "last_used": None,
    "expires": None,
}
DECISION: dict[str, Any] = {
    "decision": "accept",
    "outcome": "accept",
    "score": 0.712,
    "threshold": None,
    "threshold_source": "three-way calibration on development trials",
    "llr": 6.2,
    "llr_threshold": 2.94,
    "speaker_llr": 7.8,
    "spoof_llr": 6.5,
    "costs": "the costs behind the threshold",
    "reasons": [{"code": "above_threshold", "text": "log-likelihood ratio 6.20 >= 2.94"}],
    "speaker": "customer-4711",
    "voiceprint": VOICEPRINT["id"],
    "label": "phone",
    "model": MODEL,
    "recording": RECORDING,
}


def example(values: dict[str, Any]) -> ConfigDict:
    """Return the configuration of a body with an example; further fields are not allowed."""
    return ConfigDict(extra="forbid", json_schema_extra={"examples": [values]})


class Reason(BaseModel):
    """A reason for a decision, or a remark about it."""

    code: str = Field(description="for programs; see docs/verification.md")
    text: str = Field(description="a sentence for people")


class RecordingFacts(BaseModel):
    """The measurements of a recording."""

    model_config = example(RECORDING)
    recording: str
    seconds_compared: float = Field(
        description=("seconds that were embedded; 0 if nothing was embedded")
    )
    net_speech: float | None = Field(description="seconds of speech")
    speech_share: float | None = Field(description="share of the recording that is speech")
    level_dbfs: float | None
    snr_db: float | None = Field(description="signal-to-noise ratio")
    clipped_share: float | None
    bandwidth_hz: int | None


class Voiceprint(BaseModel):
    """A voiceprint, without its embeddings."""

    model_config = example(VOICEPRINT)
    id: str
    label: str = Field(description="distinguishes the speaker's voiceprints")
    recordings: int
    net_speech: float = Field(description="seconds of speech in its recordings")
    percentage: float = Field(
        description=("percentage of the speech of a complete enrolment, from 0 to 100")
    )
    sufficient: bool = Field(description="whether it contains enough speech to be compared")
    current_model: bool = Field(
        description=("if false, the speaker has to be enrolled again with replace=true")
    )
    quality: list[RecordingFacts] = Field(description="the measurements of its recordings")
    created: float = Field(description="seconds since 1970")
    last_used: float | None
    expires: float | None


class NewSpeaker(BaseModel):
    """A speaker to create."""

    model_config = example(
        {"id": "customer-4711", "consent": "form 7, 2026-11-26", "expires_in_days": 365}
    )
    id: Identifier | None = Field(
        default=None,
        description=(
            "choose an identifier that reveals nothing about the person; by default, the service "
            "chooses one"
        ),
    )
    consent: str = Field(default="", max_length=500, description="note on the person's consent")
    expires_in_days: float | None = Field(default=None, gt=0, le=36_500)


class Speaker(BaseModel):
    """A speaker."""

    model_config = example(
        {
            "id": "customer-4711",
            "created": 1790000000.0,
            "consent": "form 7, 2026-11-26",
            "expires": None,
            "voiceprints": [VOICEPRINT],
        }
    )
    id: str
    created: float
    consent: str
    expires: float | None
    voiceprints: list[Voiceprint]


class Speakers(BaseModel):
    """A page of the list of speakers."""

    model_config = example({"speakers": ["customer-4711", "customer-4712"], "next": None})
    speakers: list[str]
    next: str | None = Field(description="value of ``after`` for the next page; null at the end")


class Deletion(BaseModel):
    """The receipt of a deletion, which can be checked with ``sasv store verify``."""

    model_config = example(
        {
            "speaker": "customer-4711",
            "deleted": [VOICEPRINT["id"]],
            "opted_out": False,
            "entry": 42,
            "digest": "8d0f4a",
        }
    )
    speaker: str
    deleted: list[str] = Field(description="identifiers of the voiceprints")
    opted_out: bool
    entry: int = Field(description="number of the entry in the audit trail")
    digest: str = Field(description="digest of this entry")


class Enrolment(BaseModel):
    """The voiceprint with the added recording."""

    model_config = example(
        {
            "speaker": "customer-4711",
            "voiceprint": VOICEPRINT,
            "recording": RECORDING,
            "reasons": [],
        }
    )
    speaker: str
    voiceprint: Voiceprint
    recording: RecordingFacts
    reasons: list[Reason] = Field(description="warnings")


class Verification(BaseModel):
    """A decision on a claim."""

    model_config = example(DECISION)
    decision: str = Field(description="accept, reject, or inconclusive")
    outcome: str = Field(
        description=(
            "accept, reject_speaker, reject_spoof, inconclusive, or, for a model without a spoof "
            "score, reject"
        )
    )
    score: float | None = Field(description="null if nothing was compared")
    threshold: float | None
    threshold_source: str
    llr: float | None = Field(default=None, description="log-likelihood ratio that decides")
    llr_threshold: float | None = Field(
        default=None, description=("recordings are accepted from this score")
    )
    speaker_llr: float | None = Field(
        default=None, description="log-likelihood ratio of the claimed speaker against another"
    )
    spoof_llr: float | None = Field(default=None, description="of bona fide speech against spoofs")
    costs: str = ""
    reasons: list[Reason]
    speaker: str
    voiceprint: str
    label: str
    model: str = Field(description="fingerprint")
    recording: RecordingFacts


class Identification(BaseModel):
    """The candidates for the speaker of a recording."""

    model_config = example(
        {
            "outcome": "accept",
            "candidates": [DECISION],
            "reasons": DECISION["reasons"],
            "recording": RECORDING,
            "model": MODEL,
        }
    )
    outcome: str = Field(description="outcome of a claim to be the first candidate")
    candidates: list[Verification]
    reasons: list[Reason]
    recording: RecordingFacts
    model: str


class Detection(BaseModel):
    """Whether a recording is bona fide speech, regardless of the speaker."""

    model_config = example(
        {
            "outcome": "bonafide",
            "spoof_llr": 6.5,
            "llr_threshold": 0.0,
            "costs": "the costs behind the threshold",
            "reasons": [],
            "recording": RECORDING,
            "model": MODEL,
        }
    )
    outcome: str = Field(description="bonafide, spoof, or inconclusive")
    spoof_llr: float | None = Field(description="of bona fide speech against spoofs")
    llr_threshold: float
    costs: str
    reasons: list[Reason]
    recording: RecordingFacts
    model: str


class About(BaseModel):
    """The information that a client needs about the service."""

    model: str = Field(description="fingerprint")
    encoder: str
    sample_rate: int
    detects: bool = Field(description="whether the model can recognise spoofs")
    min_enrolment: float = Field(description="seconds of speech")
    min_test: float = Field(description="seconds of speech")
    enrolment_seconds: float = Field(
        description=("seconds of speech that make an enrolment complete")
    )
    max_seconds: float
    max_bytes: int
    demo: bool
    scopes: list[str] = Field(description="what the API key allows")


class Health(BaseModel):
    """Whether the service is running or ready."""

    model_config = example({"status": "ready"})
    status: str


class ProblemBody(BaseModel):
    """An error (RFC 9457)."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:sasv:problem:unknown_speaker",
                    "title": "The speaker is unknown",
                    "status": 404,
                    "detail": "there is no speaker customer-4711",
                    "code": "unknown_speaker",
                    "request_id": "5f0c2b7e5a3f4a0d",
                }
            ]
        },
    )
    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
