"""The page on costs contains the results of its script."""

import importlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_on_costs_has_the_tables_of_the_script(monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    cost = importlib.import_module("cost")
    cost.main([])
    page = (ROOT / "docs" / "guides" / "cost.md").read_text()
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(rows) > 40
    assert [row for row in rows if row not in page] == []


def test_costs_follow_the_prices(monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    cost = importlib.import_module("cost")
    cost.main(["--card-hour", "30"])
    assert "| ECAPA-TDNN | bfloat16 | 45.0 | 6.8 | 205 |" in capsys.readouterr().out
