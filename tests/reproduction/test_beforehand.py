"""The requirements of a long job are checked before its first step, and a missing plot never ends
it.
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from sasv.commands import ReproduceOptions, reproduce
from sasv.core.errors import SasvError
from sasv.core.files import locked
from sasv.reproduction import Step, beforehand
from sasv.reproduction.plans import Planner


def full(out, corpora, **changes):
    values = {
        "row": 7,
        "out": str(out),
        "voxceleb2": str(corpora / "vox2"),
        "asvspoof2019": str(corpora / "la" / "LA"),
    }
    return ReproduceOptions(**(values | changes))


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes, message",
    [
        ({"voxceleb2": "/no/vox2"}, "/no/vox2: there is no such folder.*--voxceleb2"),
        ({"voxceleb1": "/no/vox1"}, "/no/vox1: there is no such folder.*--voxceleb1"),
        ({"noises": "/no/musan"}, "/no/musan: there is no such folder"),
        ({"rirs": "EMPTY"}, "EMPTY: the folder contains no audio files"),
        ({"launch": "/no/srun -n 4"}, "--launch: /no/srun was not found on this machine"),
        ({"device": "nosuch"}, "device 'nosuch'"),
        ({"vocoders": ["griffin-lim", "hifi-gan"]}, "the vocoder hifi-gan needs weights"),
        ({"vocoders": ["nosuch"]}, "nosuch"),
    ],
)
def test_missing_requirements_are_reported_before_the_first_step(
    changes, message, corpora, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("EMPTY").mkdir()
    with pytest.raises(SasvError, match=message):
        reproduce(full("out", corpora, **changes))
    assert [path.name for path in Path("out").iterdir()] == [".lock"]


@pytest.mark.slow
def test_unwritable_output_is_reported_before_the_first_step(corpora, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SasvError, match="file/out: cannot write: .*choose another --out"):
        reproduce(full(tmp_path / "file" / "out", corpora))


@pytest.mark.slow
def test_concurrent_runs_in_one_folder_are_refused(corpora, tmp_path):
    with locked(tmp_path), pytest.raises(SasvError, match="another run is writing here"):
        reproduce(full(tmp_path, corpora))


@pytest.fixture
def finished(monkeypatch):
    """Make every plan already finished, with 12.34 % as the result of its evaluation."""

    def plan(self, encoder, stages):
        folder = self.evaluation(encoder, stages)

        def run():
            (folder / "metrics.json").write_text('{"sasv_eer": 12.34}')

        self.steps.append(
            Step("evaluate", "sasv evaluate", run, folder, ["metrics.json"], gigabytes=1.0)
        )

    monkeypatch.setattr(Planner, "add", plan)


def test_without_matplotlib_only_the_figure_is_missing(tmp_path, monkeypatch, capsys, finished):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    found = reproduce(ReproduceOptions(row=7, scale="tiny", out=str(tmp_path)))
    captured = capsys.readouterr()
    assert found[0].metrics["sasv_eer"] == 12.34 and "12.34" in found.text
    assert captured.err.index("will be left out") < captured.err.index("[1/1] evaluate")
    assert "12.34" in (tmp_path / "table/report.md").read_text()


def test_insufficient_disk_space_is_reported_before_the_first_step(
    tmp_path, monkeypatch, capsys, finished
):
    monkeypatch.setattr(beforehand.shutil, "disk_usage", lambda path: SimpleNamespace(free=4e8))
    reproduce(ReproduceOptions(row=7, scale="tiny", out=str(tmp_path)))
    assert "the steps write about 1.00 GB, estimated; 0.40 GB are free" in capsys.readouterr().err
