"""Medians of repeated measurements, and ratios to a named baseline in the same run."""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence


def is_quick(words: Sequence[str] | None, about: str) -> bool:
    """Whether the command line requests the smallest size (``--quick``), at which a test runs every
    benchmark; its results are meaningless.
    """
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the smallest size, for a test")
    return bool(parser.parse_args(words).quick)


def measure(function: Callable[[], object], repeats: int = 5) -> float:
    """Return the median seconds of a call, after one call to warm up."""
    function()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def header(title: str) -> None:
    """Print what is measured, and where."""
    print(f"\n{title}  [{os.cpu_count()} cores, Python {platform.python_version()}]")


def row(name: str, seconds: float, baseline: float | None = None, note: str = "") -> None:
    """Print one measurement, with its ratio to the baseline."""
    ratio = "" if baseline is None else f"{baseline / seconds:7.2f} x as fast"
    print(f"  {name:46} {1000 * seconds:11.2f} ms {ratio} {note}")
