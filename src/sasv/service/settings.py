"""The settings of a service: limits on size, time, and concurrency."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """Limits of a service.

    Attributes:
        max_bytes: maximum size of the body of a request.
        max_seconds: maximum length of a recording or stream.
        workers: number of requests that are computed at the same time.
        queue: number of further requests that may wait; any more are answered with status 503.
        batch: maximum number of recordings that are embedded together; 1 embeds each at once.
        batch_wait: seconds for which a recording waits for others to form a batch.
        rate: maximum number of requests per second for each API key, on average; 0 sets no limit.
        burst: maximum number of requests of a key in a burst.
        body_timeout: seconds within which the body of a request must arrive.
        buffered_bytes: maximum total size of the bodies in memory.
        streams: maximum number of open WebSocket streams.
        stream_timeout: seconds without a message after which a stream is closed.
        enrolment_seconds: seconds of speech that make an enrolment complete.
        max_recordings: maximum number of recordings in a voiceprint.
        answers: maximum number of stored responses to idempotent requests for each key.
        answer_seconds: seconds for which they are stored.
        demo: whether everybody may do everything without a key.
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
