"""Speed and memory of an exported model. Each number of threads is measured in a separate process,
in which only the model is loaded.
"""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from sasv.core.errors import SasvError
from sasv.core.memory import peak_memory

LATENCY_SECONDS = 3.0


@dataclass(frozen=True)
class Speed:
    """The measurements for one number of threads.

    Attributes:
        threads: number of threads for each call.
        real_time_factor: computing time for each second of audio, in seconds, measured on 10 s.
        latency_ms: median time to embed 3 s of audio.
        start_ms: time to load the model.
        first_score_cpu_ms: processor time from the start of Python to the first score, of a
            recording of 3 s against an enrolment of 3 s.
        memory_mb: peak resident memory of the process; None if the system does not report it.
    """

    threads: int
    real_time_factor: float
    latency_ms: float
    start_ms: float
    first_score_cpu_ms: float
    memory_mb: float | None


def measure_here(path: str, threads: int, repeats: int) -> Speed:
    """Measure a model in this process, which has computed nothing before."""
    from sasv.decision import ANY_SPEECH
    from sasv.runtime.model import OnnxModel

    started = time.perf_counter()
    model = OnnxModel(path, threads)
    start = time.perf_counter() - started
    rate = model.specification.sample_rate
    rng = np.random.default_rng(0)

    def noise(seconds: float) -> np.ndarray:
        return 0.1 * rng.standard_normal(round(seconds * rate)).astype(np.float32)

    vectors = [model.recording(noise(LATENCY_SECONDS), ANY_SPEECH).vector for _ in range(2)]
    assert vectors[0] is not None and vectors[1] is not None
    model.score(vectors[0], vectors[1])
    first = time.process_time()

    def median(seconds: float) -> float:
        wave = noise(seconds)
        times = []
        for _ in range(repeats + 1):
            began = time.perf_counter()
            model.embed_whole([wave])
            times.append(time.perf_counter() - began)
        return float(np.median(times[1:]))

    latency = median(LATENCY_SECONDS)
    factor = median(10.0) / 10.0
    memory = peak_memory()
    megabytes = None if memory is None else memory / 1e6
    return Speed(threads, factor, 1000 * latency, 1000 * start, 1000 * first, megabytes)


def measured(path: str, threads: int, repeats: int) -> dict[str, Any]:
    """Measure a model in a separate process; return the values of ``Speed``."""
    code = (
        "import json, sys; from dataclasses import asdict; "
        "from sasv.runtime.benchmark import measure_here; "
        "print(json.dumps(asdict(measure_here(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))))"
    )
    words = [sys.executable, "-c", code, path, str(threads), str(repeats)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
        raise SasvError(f"{path}: the measurement failed ({reason[0]})")
    values: dict[str, Any] = json.loads(done.stdout)
    return values
