"""``/v1/stream``: verification of speech that arrives in pieces, over a WebSocket.

The client begins with a JSON text ``{"type": "start", "speaker": ..., "format": "pcm16", "rate":
16000}``, sends audio as binary messages, and ends with ``{"type": "end"}``. The service answers
with ``ready``, with a ``decision`` after each second of audio, and with a last one, whose ``final``
is true. Errors are messages of the type ``problem``.
"""

import asyncio
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import soxr
from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sasv.core.errors import SasvError
from sasv.decision import Decision
from sasv.runtime.verifier import Stream
from sasv.service.auth import admitted
from sasv.service.context import Service, service_of
from sasv.service.engine import Engine
from sasv.service.guard import request_id_of
from sasv.service.keys import Principal
from sasv.service.problems import Problem, internal
from sasv.service.schemas import LABEL_PATTERN, PATTERN
from sasv.store import Stored

logger = logging.getLogger("sasv")
router = APIRouter()

CLOSED = 1000
REFUSED = 1008
FAILED = 1011
BUSY = 1013

LARGEST_MESSAGE = 1_000_000
OPUS_RATE = 48_000
LONGEST_KEY = 200
START_SECONDS = 5.0
"""Seconds within which the first message must arrive."""


class Start(BaseModel):
    """The first message of a client."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["start"]
    speaker: str = Field(pattern=PATTERN)
    label: str | None = Field(default=None, pattern=LABEL_PATTERN)
    key: str = Field(default="", max_length=LONGEST_KEY)
    format: Literal["pcm16", "opus"] = "pcm16"
    rate: Annotated[int, Field(ge=8000, le=48_000)] = 16_000
    every: Annotated[float, Field(ge=0.25, le=10)] = 1.0


class Decoder(Protocol):
    """Turns messages into samples at the sample rate of the model."""

    def __call__(self, data: bytes) -> np.ndarray:
        """Return the samples of a message, float32 (samples,)."""


class SpeakerStream(Stream):
    """A stream that is compared with all voiceprints of a speaker; the one with the highest score
    decides.
    """

    def __init__(self, engine: Engine, voiceprints: Sequence[Stored], every: float) -> None:
        self.engine = engine
        self.voiceprints = voiceprints
        self.best = voiceprints[0]
        super().__init__(engine.verifier, voiceprints[0].voiceprint, every)

    def _decided(self) -> Decision:
        self.best, decision = self.engine.best(self.voiceprints, self.windows.recording())
        return decision


class Pcm:
    """Decodes 16-bit little-endian integers, one channel."""

    def __init__(self, rate: int, wanted: int) -> None:
        self.rest = b""
        self.resampler = None
        if rate != wanted:
            self.resampler = soxr.ResampleStream(rate, wanted, 1, dtype="float32")

    def __call__(self, data: bytes) -> np.ndarray:
        """Return the samples of a message. Half a sample is kept for the next message."""
        data = self.rest + data
        even = len(data) // 2 * 2
        self.rest = data[even:]
        wave = np.frombuffer(data[:even], "<i2").astype(np.float32) / 32768
        if self.resampler is not None:
            wave = self.resampler.resample_chunk(wave)
        return wave


class Opus:
    """Decodes Opus, one packet in each message."""

    def __init__(self, wanted: int) -> None:
        try:
            import av
        except ImportError as error:
            text = 'Opus needs PyAV: pip install "sasv[m4a]"'
            raise Problem(501, "not_supported", text) from error
        self.av = av
        self.context = av.CodecContext.create("opus", "r")
        self.resampler = soxr.ResampleStream(OPUS_RATE, wanted, 1, dtype="float32")

    def __call__(self, data: bytes) -> np.ndarray:
        """Return the samples of a packet. Raises Problem if it is invalid."""
        try:
            frames = self.context.decode(self.av.Packet(data))
        except (self.av.error.FFmpegError, ValueError) as error:
            text = "a message is not an Opus packet"
            raise Problem(422, "unreadable_audio", text) from error
        waves = [np.atleast_2d(frame.to_ndarray()).mean(axis=0) for frame in frames]
        wave = np.concatenate([np.zeros(0), *waves]).astype(np.float32)
        if not np.isfinite(wave).all():
            raise Problem(
                422, "unreadable_audio", ("an Opus packet contains values that are not finite")
            )
        found: np.ndarray = self.resampler.resample_chunk(wave)
        return found


@router.websocket("/v1/stream")
async def stream(socket: WebSocket) -> None:
    """Verify a stream."""
    service = service_of(socket)
    await socket.accept()
    try:
        await _Conversation(service, socket).hold()
    except WebSocketDisconnect:
        pass
    except Problem as problem:
        await _refuse(socket, problem)
    except Exception:
        logger.exception("stream %s failed", request_id_of(socket))
        await _refuse(socket, internal())


class _Conversation:
    """One stream."""

    def __init__(self, service: Service, socket: WebSocket) -> None:
        self.service = service
        self.socket = socket
        self.settings = service.settings

    async def hold(self) -> None:
        start = await self._start()
        key = start.key
        header = self.socket.headers.get("authorization", "")
        if header.lower().startswith("bearer "):
            key = header[len("bearer ") :].strip()
        principal = await admitted(self.service, key, "verify")
        with self._place():
            await self._listen(start, principal)

    @contextmanager
    def _place(self) -> Iterator[None]:
        """Reserve one of the streams. Only holders of API keys can do so."""
        service = self.service
        if service.open_streams >= service.settings.streams:
            text = f"{service.open_streams} streams are open already; try again later"
            raise Problem(503, "busy", text)
        service.open_streams += 1
        service.metrics.streams.set(service.open_streams)
        try:
            yield
        finally:
            service.open_streams -= 1
            service.metrics.streams.set(service.open_streams)

    async def _listen(self, start: Start, principal: Principal) -> None:
        engine, workers = self.service.engine, self.service.workers
        voiceprints = await workers.store(
            engine.voiceprints, principal.tenant, start.speaker, start.label
        )
        wanted = engine.embedder.specification.sample_rate
        decoder: Decoder = Opus(wanted) if start.format == "opus" else Pcm(start.rate, wanted)
        listener = await workers.compute(SpeakerStream, engine, voiceprints, start.every)
        await self._send({"type": "ready", "request_id": request_id_of(self.socket)})
        shown = listener.decision
        most = round(self.settings.max_seconds * wanted)
        try:
            while listener.windows.heard < most:
                data = await self._audio()
                if data is None:
                    break
                await workers.compute(lambda data=data: listener.feed(decoder(data)))
                if listener.decision is not shown:
                    shown = listener.decision
                    await self._send(self._values(listener, final=False))
        finally:
            await workers.compute(listener.finish)
            recording = await workers.compute(listener.windows.recording, "recording")
            values = await workers.store(
                engine.decided, start.speaker, listener.best, listener.decision, recording
            )
            engine.metrics.decision("stream", values)
        await self._send(self._values(listener, final=True) | values)
        await self.socket.close(CLOSED)

    async def _start(self) -> Start:
        message = await self._message(min(START_SECONDS, self.settings.stream_timeout))
        try:
            return Start.model_validate_json(message.get("text") or "")
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            text = f"the first message must be a start message in JSON: {place} {first['msg']}"
            raise Problem(422, "invalid_request", text) from error

    async def _audio(self) -> bytes | None:
        """Return the next audio, or None at the end."""
        message = await self._message(self.settings.stream_timeout)
        data: bytes | None = message.get("bytes")
        if data is not None:
            return data
        try:
            ends = json.loads(message["text"]) == {"type": "end"}
        except (ValueError, RecursionError):
            ends = False
        if not ends:
            text = 'send audio as binary messages, and {"type": "end"} at the end'
            raise Problem(422, "invalid_request", text)
        return None

    async def _message(self, seconds: float) -> Any:
        try:
            async with asyncio.timeout(seconds):
                message = await self.socket.receive()
        except TimeoutError as error:
            text = f"no message arrived for {seconds:g} s"
            raise Problem(408, "timeout", text) from error
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", CLOSED))
        return message

    async def _send(self, values: dict[str, Any]) -> None:
        async with asyncio.timeout(self.settings.stream_timeout):
            await self.socket.send_text(json.dumps(values, allow_nan=False))

    def _values(self, listener: SpeakerStream, final: bool) -> dict[str, Any]:
        rate = listener.windows.rate
        return {
            "type": "decision",
            "final": final,
            "settled": listener.settled,
            "heard": round(listener.windows.heard / rate, 3),
            **listener.decision.to_dict(),
        }


async def _refuse(socket: WebSocket, problem: Problem) -> None:
    """Send the problem, and close the stream."""
    service_of(socket).metrics.problems.labels(problem.code).inc()
    code = {503: BUSY, 500: FAILED}.get(problem.status, REFUSED)
    try:
        body = problem.body(request_id_of(socket)) | {"type": "problem"}
        await socket.send_text(json.dumps(body, allow_nan=False))
        await socket.close(code, problem.code)
    except (RuntimeError, WebSocketDisconnect, SasvError):
        return
