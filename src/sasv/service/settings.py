"""What an operator may set: limits of size, time, and concurrency."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """Limits of a service.

    Attributes:
        max_bytes: largest body of a request.
        max_seconds: longest recording, and longest stream.
        workers: requests that are computed at the same time.
        queue: further requests that may wait; more are answered with 503.
        batch: recordings that are embedded in one run of the model at most; 1 does not wait.
        batch_wait: seconds that a recording waits for others.
        rate: requests a second of each API key, on average; 0 does not limit them.
        burst: requests of a key that may come at once.
        body_timeout: seconds in which the body of a request has to arrive.
        buffered_bytes: bodies of all requests together that are held in memory at most.
        streams: WebSocket streams that are open at the same time.
        stream_timeout: seconds without a message after which a stream is closed.
        enrolment_seconds: net speech at which an enrolment is 100 % complete.
        max_recordings: recordings of a voiceprint.
        answers: answers to idempotent requests that are kept for each key.
        answer_seconds: how long they are kept.
        demo: everybody may do everything, without a key.
    """

    max_bytes: int = 20_000_000
    max_seconds: float = 120.0
    workers: int = 2
    queue: int = 64
    batch: int = 1
    batch_wait: float = 0.005
    rate: float = 50.0
    burst: int = 100
    body_timeout: float = 30.0
    buffered_bytes: int = 256_000_000
    streams: int = 32
    stream_timeout: float = 20.0
    enrolment_seconds: float = 10.0
    max_recordings: int = 50
    answers: int = 10_000
    answer_seconds: float = 86_400.0
    demo: bool = False
