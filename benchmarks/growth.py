"""Growth of time and memory from 10^5 to 10^7 rows: table, plan, scores, s-norm, metrics, report,
and index of embeddings.

Each stage runs at each size in a separate process, so that its peak memory can be measured; its
inputs are made before the time is taken. The exponent is the slope of the processor time between
the two largest sizes on logarithmic axes; 1 means linear growth. ``--quick`` runs tiny sizes;
``--stage`` and ``--rows`` choose.

    python benchmarks/growth.py [--quick] [--stage report] [--rows 1e5,1e6] [--cohort 100000]
"""

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

SIZES = (10**5, 10**6, 10**7)
QUICK = (200, 2000)
DIMENSION = 192
NARROW = 16
"""Dimension of embeddings if only the number of rows matters."""

BLOCK = 100_000
"""Number of rows that are written at once."""

Work = Callable[[], object]


def spelt(prefix: str, numbers: np.ndarray) -> list[str]:
    """Return names of equal width."""
    return [f"{prefix}{number:08}" for number in numbers.tolist()]


def directions(rows: int, dimension: int = DIMENSION) -> np.ndarray:
    """Random directions, float32."""
    vectors = np.random.default_rng(0).standard_normal((rows, dimension), np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def write_rows(
    path: Path, header: str, rows: int, columns: Callable[[np.ndarray], list[list[str]]]
) -> Path:
    """Write a table without the code that is measured, in blocks, since texts take much memory.

    Args:
        path: file.
        header: names of the columns.
        rows: number of rows.
        columns: returns the cells of some rows, column by column.
    """
    with open(path, "w") as stream:
        stream.write(header.replace(" ", "\t") + "\n")
        for start in range(0, rows, BLOCK):
            block = columns(np.arange(start, min(start + BLOCK, rows)))
            stream.writelines("\t".join(cells) + "\n" for cells in zip(*block))
    return path


def table(rows: int, folder: Path) -> Work:
    """Read and check an utterance table."""
    from sasv.tables import load_utterances

    def cells(block: np.ndarray) -> list[list[str]]:
        names = spelt("id1/utterance/", block)
        speakers = spelt("s", block % max(rows // 200, 1))
        return [names, [f"wav/{name}.wav" for name in names], speakers]

    path = write_rows(folder / "u.tsv", "utterance path speaker", rows, cells)
    return lambda: load_utterances(path).speakers


def plan(rows: int, folder: Path) -> Work:
    """Plan an epoch."""
    from sasv.batches.plan import PairPlanner

    speakers = np.arange(rows) % max(rows // 200, 10)
    nothing = np.zeros(rows, np.int64)
    planner = PairPlanner(speakers, nothing.astype(bool), nothing, len(set(speakers)), pairs=10)
    return lambda: planner.plan(0)


def drawn(rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (label, enrolment, utterance) of each trial, in the proportions of ASVspoof2019 LA."""
    rng = np.random.default_rng(0)
    labels = rng.choice(3, rows, p=[0.05, 0.33, 0.62])
    return labels, rng.integers(0, max(rows // 1000, 5), rows), np.arange(rows) // 10


def scoring(rows: int, folder: Path) -> Work:
    """Inner products of trials."""
    from sasv.scores.cosine import products

    _, enrolment, utterance = drawn(rows)
    left = directions(int(enrolment.max()) + 1)
    right = directions(int(utterance.max()) + 1)
    return lambda: products(left, right, enrolment, utterance)


def s_norm(rows: int, folder: Path, cohort: int = 1000) -> Work:
    """Adaptive s-norm against a cohort of a fixed size."""
    from sasv.scores.normalise import Cohort, s_norm

    _, enrolment, utterance = drawn(rows)
    left = directions(int(enrolment.max()) + 1)
    right = directions(int(utterance.max()) + 1)
    scores = np.random.default_rng(1).standard_normal(rows).astype(np.float32)
    everyone = Cohort(directions(cohort))
    return lambda: s_norm(scores, left, right, enrolment, utterance, everyone)


def metrics(rows: int, folder: Path) -> Work:
    """Every metric of scores."""
    from sasv.metrics import Measure

    labels = drawn(rows)[0].astype(np.int8)
    scores = np.random.default_rng(1).standard_normal(rows) + 3 * (labels == 0)
    return lambda: Measure(scores, labels)()


def report(rows: int, folder: Path) -> Work:
    """The page of one system, from its score file, without intervals."""
    from sasv.commands import ReportOptions, report

    labels, enrolment, utterance = drawn(rows)
    scores = np.random.default_rng(1).standard_normal(rows) + 3 * (labels == 0)

    def cells(block: np.ndarray) -> list[list[str]]:
        words = np.array(["target", "nontarget", "spoof"])[labels[block]].tolist()
        numbers = ((labels == 2)[block] * utterance[block]).tolist()
        attacks = [f"A{7 + number % 13:02}" if number else "-" for number in numbers]
        shown = [f"{score:.9g}" for score in scores[block].tolist()]
        return [spelt("s", enrolment[block]), spelt("u", block), words, attacks, shown]

    header = "speaker utterance label attack score"
    path = write_rows(folder / "scores.tsv", header, rows, cells)
    return lambda: report(ReportOptions([str(path)], str(folder / "report"), intervals=0))


def index(rows: int, folder: Path) -> Work:
    """Write and read embeddings and their index."""
    from sasv.embeddings.extract import Embeddings

    made = Embeddings(directions(rows, NARROW), spelt("u", np.arange(rows)), {})

    def work() -> None:
        made.save(folder / "embeddings")
        Embeddings.load(folder / "embeddings")

    return work


STAGES = {
    "table": table,
    "plan": plan,
    "scoring": scoring,
    "s-norm": s_norm,
    "metrics": metrics,
    "report": report,
    "index": index,
}


def one(stage: str, rows: int, cohort: int) -> None:
    """Measure one stage at one size; print seconds, seconds of the processor, and GB before and at
    the peak, as JSON.
    """
    with tempfile.TemporaryDirectory() as folder:
        extra = {"cohort": cohort} if stage == "s-norm" else {}
        work = STAGES[stage](rows, Path(folder), **extra)
        before = peak()
        started = time.perf_counter()
        computed = time.process_time()
        work()
        seconds = time.perf_counter() - started
        print(json.dumps([seconds, time.process_time() - computed, before, peak()]))


def peak() -> float:
    """Peak memory of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def measured(stage: str, rows: int, cohort: int) -> list[float]:
    """Measure one stage at one size in a separate process."""
    words = [sys.executable, __file__, "--one", stage, "--rows", str(rows), "--cohort", str(cohort)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(words, check=True, capture_output=True, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def exponent(sizes: list[int], values: list[float]) -> float:
    """Return the slope between the two largest sizes on logarithmic axes."""
    return math.log(values[-1] / values[-2]) / math.log(sizes[-1] / sizes[-2])


def main(arguments: list[str] | None = None) -> None:
    """Print a row for each stage and size, and the exponents."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    parser.add_argument("--stage", default=",".join(STAGES), help="stages, separated by commas")
    parser.add_argument("--rows", default="", help="sizes, separated by commas")
    parser.add_argument("--cohort", type=int, default=1000, help="members of the cohort of s-norm")
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    sizes = [int(float(text)) for text in options.rows.split(",") if text]
    if options.one:
        one(options.one, sizes[0], options.cohort)
        return
    sizes = sizes or list(QUICK if options.quick else SIZES)
    names = ("rows", "seconds", "CPU", "GB before", "GB peak")
    print(f"{'stage':10}" + "".join(f"{name:>12}" for name in names))
    for stage in options.stage.split(","):
        times = []
        for rows in sizes:
            values = measured(stage, rows, options.cohort)
            times.append(values[1])
            shown = "".join(f"{value:12.3f}" for value in values)
            print(f"{stage:10}{rows:12,}{shown}", flush=True)
        if len(sizes) > 1:
            print(f"{stage:10}{'exponent':>12}{exponent(sizes, times):12.2f}", flush=True)


if __name__ == "__main__":
    main()
