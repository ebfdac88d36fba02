"""The files in the root folder of the project agree with each other."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

import conftest
import sasv

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_oldest_versions_are_the_lower_bounds():
    wanted = requirements()
    bounds = {name.replace(">=", "==") for name in wanted if ">=" in name}
    assert all(">=" in name or name.startswith("sasv[") for name in wanted)
    listed = (ROOT / "constraints-oldest.txt").read_text().splitlines()
    assert {line for line in listed if not line.startswith("#")} == bounds


def test_every_dependency_is_pinned():
    pinned = {re.sub("[-_.]+", "-", line).lower().partition("==")[0] for line in pins()}
    wanted = requirements()
    names = {
        re.sub("[-_.]+", "-", name.partition(">=")[0]).lower()
        for name in wanted
        if not name.startswith("sasv[")
    }
    assert names - pinned <= {"bigvgan"}  # pins versions of its own that do not go with ours


def requirements():
    extras = PROJECT["optional-dependencies"].values()
    return PROJECT["dependencies"] + [requirement for extra in extras for requirement in extra]


def pins():
    return [line for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]


def test_the_version_stands_in_one_place_and_needs_no_torch():
    assert "version" in PROJECT["dynamic"]
    code = "import sys; sys.modules['torch'] = None; from sasv.cli import main; main(['--version'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"sasv {sasv.__version__}\n"


def test_the_changelog_names_this_version_or_what_is_not_released():
    text = (ROOT / "CHANGELOG.md").read_text()
    assert "## [Unreleased]" in text or f"## [{sasv.__version__}]" in text


def test_yaml_files_can_be_read():
    for path in [
        *ROOT.glob(".github/**/*.yml"),
        ROOT / ".pre-commit-config.yaml",
        ROOT / "CITATION.cff",
    ]:
        assert yaml.safe_load(path.read_text()), path


def test_allowed_skips_are_regular_expressions():
    for line in conftest.allowed_skips():
        re.compile(line)


@pytest.mark.parametrize(
    "ci, reason, status",
    [
        ("1", "needs a CUDA device", 0),  # on the list
        ("1", "nobody knows why", 1),
        ("", "nobody knows why", 0),
    ],
)
def test_an_unexpected_skip_fails_in_continuous_integration(monkeypatch, ci, reason, status):
    monkeypatch.setenv("CI", ci)
    report = SimpleNamespace(nodeid="test_it", longrepr=("test_it.py", 1, f"Skipped: {reason}"))
    reporter = SimpleNamespace(stats={"skipped": [report]})
    plugins = SimpleNamespace(get_plugin=lambda name: reporter)
    session = SimpleNamespace(exitstatus=0, config=SimpleNamespace(pluginmanager=plugins))
    conftest.pytest_sessionfinish(session)
    assert session.exitstatus == status
