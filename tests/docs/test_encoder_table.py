"""docs/encoders.md agrees with the registry, and its benchmark runs."""

import importlib
import sys
from pathlib import Path

import pytest

from sasv.encoders import ENCODERS
from sasv.weights import catalogue

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def benchmarks():
    """Import scripts of benchmarks/ by name."""
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def table(benchmarks):
    """The script that writes the page, and the cells of each line."""
    script = benchmarks("encoder_table")
    lines = [line for line in script.PAGE.read_text().splitlines() if line.startswith("| `")]
    return script, [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_encoder_is_listed_with_its_weights(table):
    script, cells = table
    rows = script.rows()
    assert {row.encoder for row in rows} == set(ENCODERS)
    assert len(cells) == len(rows)
    for row, line in zip(rows, cells):
        assert line[:2] == [f"`{row.encoder}`", row.what]
        assert line[6] == script.weights_cell(row)
        assert isinstance(row.weights, str) or set(row.weights) <= set(catalogue())


@pytest.mark.slow
def test_size_and_cost_are_those_of_the_registry(table):
    """Only encoders that are built and counted within a second; the slow test includes all."""
    script, cells = table
    for row, line in zip(script.rows(), cells):
        if row.encoder == "ecapa-wespeaker":
            assert line[:4] == script.static_cells(row)


@pytest.mark.long
@pytest.mark.slow
def test_all_sizes_and_costs_are_those_of_the_registry(table):
    script, cells = table
    for row, line in zip(script.rows(), cells):
        assert line[:4] == script.static_cells(row)


@pytest.mark.slow
def test_the_benchmark_beside_the_originals_runs(benchmarks, capsys):
    """Without the originals, a second of CAM++."""
    benchmarks("bench_peers").main(["--quick"])
    assert "sasv, in batches" in capsys.readouterr().out
