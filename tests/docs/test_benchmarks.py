"""Every benchmark runs, at its smallest size; its figures are not looked at."""

import importlib
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
NAMES = sorted(path.stem for path in FOLDER.glob("bench_*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_runs(name, monkeypatch, capsys):
    monkeypatch.syspath_prepend(FOLDER)
    importlib.import_module(name).main(["--quick"])
    said = capsys.readouterr().out
    assert "cores, Python" in said
    assert "baseline" in said or "x real time" in said or "x float32" in said
