"""Every benchmark runs at its smallest size. Its results are not checked."""

import importlib
import json
from pathlib import Path

import pytest

pytestmark = [pytest.mark.long, pytest.mark.slow]

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
NAMES = sorted(path.stem for path in FOLDER.glob("bench_*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_runs(name, monkeypatch, capsys):
    monkeypatch.syspath_prepend(FOLDER)
    importlib.import_module(name).main(["--quick"])
    said = capsys.readouterr().out
    assert "cores, Python" in said
    assert "baseline" in said or "x real time" in said or "x float32" in said


def test_growth_measures_every_stage(monkeypatch, capsys):
    monkeypatch.syspath_prepend(FOLDER)
    growth = importlib.import_module("growth")
    growth.main(["--quick"])
    said = capsys.readouterr().out
    assert all(f"{stage:10}{'exponent':>12}" in said for stage in growth.STAGES)


def test_every_part_of_the_script_for_a_card_runs(monkeypatch, tmp_path, capsys):
    """On a CPU, at its smallest size. SpeechBrain may be missing."""
    monkeypatch.syspath_prepend(FOLDER)
    gpu = importlib.import_module("gpu")
    assert gpu.main(["--out", str(tmp_path), "--quick"]) == 0, capsys.readouterr().out
    said = capsys.readouterr().out
    for part in gpu.PARTS:
        assert part.__doc__ in said
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["failed"] == []
    assert found["deterministic the killed and resumed"] is True
    assert found["difference ecapa-tdnn"] < 1e-5
