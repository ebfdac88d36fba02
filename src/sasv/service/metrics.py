"""The metrics that Prometheus reads at ``/metrics``: latency, outcomes, and the distributions of
scores and of the quality of recordings, which reveal drift.
"""

from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from sasv.core.version import __version__

MEDIA_TYPE = CONTENT_TYPE_LATEST

LATENCIES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0)
LLRS = (-20, -10, -7, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 7, 10, 20)
COSINES = tuple(round(-0.2 + 0.1 * step, 1) for step in range(13))

QUALITIES: Mapping[str, tuple[str, tuple[float, ...]]] = {
    "net_speech": ("seconds of speech", (0.5, 0.75, 1, 1.5, 2, 3, 5, 8, 12, 20, 40, 80)),
    "snr_db": ("signal-to-noise ratio", (-10, -5, 0, 5, 10, 15, 20, 25, 30, 40, 50)),
    "level_dbfs": ("level", (-65, -60, -55, -50, -45, -40, -35, -30, -25, -20, -15, -10)),
    "bandwidth_hz": ("bandwidth", (2500, 3000, 3400, 4000, 5300, 6200, 7000, 8000)),
    "clipped_share": ("share of clipped samples", (0, 0.0001, 0.001, 0.01, 0.05, 0.1, 0.5)),
}
"""Name of a measurement of recordings -> its description, and the bounds of its histogram."""

SCORES = {
    "score": ("score of a decision", COSINES),
    "llr": ("log-likelihood ratio used for the decision", LLRS),
    "speaker_llr": ("log-likelihood ratio of the speaker", LLRS),
    "spoof_llr": ("log-likelihood ratio of bona fide speech", LLRS),
}


class Metrics:
    """The counters and histograms of one service."""

    def __init__(self, model: str) -> None:
        """Begin with all counters at zero.

        Args:
            model: fingerprint of the model.
        """
        self.registry = CollectorRegistry()
        registry = self.registry
        self.latency = Histogram(
            "sasv_request_seconds",
            "Time from the request to the end of the response",
            ("route", "method", "status"),
            buckets=LATENCIES,
            registry=registry,
        )
        self.outcomes = Counter(
            "sasv_outcomes", "Outcomes of decisions", ("operation", "outcome"), registry=registry
        )
        self.reasons = Counter("sasv_reasons", "Reasons of decisions", ("code",), registry=registry)
        self.problems = Counter("sasv_problems", "Errors by code", ("code",), registry=registry)
        self.scores = {
            name: Histogram(
                f"sasv_{name}", f"The {what}", ("operation",), buckets=bounds, registry=registry
            )
            for name, (what, bounds) in SCORES.items()
        }
        self.qualities = {
            name: Histogram(
                f"sasv_recording_{name}",
                f"Recordings: {what}",
                ("operation",),
                buckets=bounds,
                registry=registry,
            )
            for name, (what, bounds) in QUALITIES.items()
        }
        self.computing = Gauge("sasv_computing", "Requests being computed", registry=registry)
        self.waiting = Gauge("sasv_waiting", "Requests waiting for a worker", registry=registry)
        self.streams = Gauge("sasv_streams", "Open streams", registry=registry)
        self.batches = Histogram(
            "sasv_batch_recordings",
            "Recordings in one run of the model",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=registry,
        )
        information = Gauge("sasv_build", "Constant", ("version", "model"), registry=registry)
        information.labels(__version__, model).set(1)

    def text(self) -> bytes:
        """Return all values in the Prometheus format."""
        return generate_latest(self.registry)

    def recording(self, operation: str, facts: Mapping[str, Any]) -> None:
        """Count the measurements of a recording (see Recording.to_dict)."""
        for name, histogram in self.qualities.items():
            if facts.get(name) is not None:
                histogram.labels(operation).observe(facts[name])

    def decision(self, operation: str, decision: Mapping[str, Any]) -> None:
        """Count a decision (see Decision.to_dict)."""
        self.outcomes.labels(operation, decision["outcome"]).inc()
        for name, histogram in self.scores.items():
            if decision.get(name) is not None:
                histogram.labels(operation).observe(decision[name])
        for reason in decision["reasons"]:
            self.reasons.labels(reason["code"]).inc()
