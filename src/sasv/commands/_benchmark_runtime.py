"""sasv benchmark-runtime."""

import os
from dataclasses import dataclass, field
from typing import Annotated, Any

from sasv.core.options import Options, PositiveInt, Range
from sasv.runtime.benchmark import measured
from sasv.runtime.model import OnnxModel


@dataclass
class BenchmarkRuntimeOptions(Options):
    """Measure an exported model for several numbers of threads: the real-time factor, the time to
    embed 3 s of audio, the time to load the model, the processor time from the start of Python to
    the first score of two recordings of 3 s, and the memory.

    Args:
        model: ONNX file that sasv export wrote.
        threads: numbers of threads to measure; by default 1, 2, 4, and so on, up to the cores.
        repeats: number of runs, of which the median is taken.
        json: print JSON.
    """

    model: str
    threads: Annotated[list[int], Range(1, 1024)] = field(default_factory=list)
    repeats: PositiveInt = 20
    json: bool = False


def benchmark_runtime(options: BenchmarkRuntimeOptions) -> dict[str, Any]:
    """Return the measurements, one row for each number of threads."""
    model = OnnxModel(options.model, 1)
    threads = options.threads or doubled(os.cpu_count() or 1)
    return {
        "model": options.model,
        "precision": model.record.precision,
        "rows": [measured(options.model, count, options.repeats) for count in threads],
    }


def doubled(most: int) -> list[int]:
    """Return 1, 2, 4, and so on, ending with ``most``."""
    counts = [1]
    while 2 * counts[-1] <= most:
        counts.append(2 * counts[-1])
    return counts if counts[-1] == most else [*counts, most]
