"""Every benchmark runs at its smallest size. Its results are not checked."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import built_encoder
from sasv.audio.io import write_audio
from sasv.batches.augment import Augmenter

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


def test_telephone_enrolments_are_tested_with_other_speech(monkeypatch, tmp_path):
    """Two target utterances of p, of which the first enrols, and one nontarget."""
    monkeypatch.syspath_prepend(FOLDER)
    module = importlib.import_module("telephone_trials")
    head = "utterance\tpath\tspeaker\tlabel\tsource\tcodec\n"
    rows = [f"{name}\t{name}.wav\tp\tbonafide\t-\t-\n" for name in ("e", "t1", "t2", "q", "z")]
    for codec in ("amr", "mulaw", "mp3"):
        for name in ("t1", "t2", "q"):
            rows.append(f"{name}~{codec}\t{name}{codec}.wav\tp\tbonafide\t{name}\t{codec}\n")
    (tmp_path / "utterances.tsv").write_text(head + "".join(rows))
    (tmp_path / "enrolments.tsv").write_text("speaker\tutterances\np\te\n")
    trials = "p\tt1\ttarget\t-\np\tt2\ttarget\t-\np\tq\tnontarget\t-\np\tz\tnontarget\t-\n"
    (tmp_path / "trials.tsv").write_text("speaker\tutterance\tlabel\tattack\n" + trials)
    files = [str(tmp_path / f"{name}.tsv") for name in ("utterances", "enrolments", "trials")]
    monkeypatch.setattr("sys.argv", ["telephone_trials.py", *files, str(tmp_path / "out")])
    module.main()
    enrolments = (tmp_path / "out" / "enrolments.tsv").read_text().splitlines()
    assert enrolments[1:] == ["p\te", "p~amr\tt1~amr", "p~mulaw\tt1~mulaw"]
    found = (tmp_path / "out" / "trials.tsv").read_text().splitlines()
    assert found[1:5] == trials.splitlines()
    heard = ("", "~amr", "~mulaw", "~mp3")
    assert found[5:13] == [
        *(f"p~amr\tt2{through}\ttarget\t-" for through in heard),
        *(f"p~amr\tq{through}\tnontarget\t-" for through in heard),
    ]
    assert len(found) == 1 + 4 + 2 * 8


def last_layer_of(encoder, crops):
    """Give the batch norm of the last layer of an encoder other statistics; return inputs of this
    layer for clean crops, the same through a codec that adds a constant, a function that embeds
    them, and the arguments of a fit: both kinds of crops and one more, and the number of the crop
    before the codec of each, -1 for the last one, which is left out.
    """
    dense = encoder.xvector["dense"]
    with torch.no_grad():
        dense.nonlinear.batchnorm.running_mean.uniform_(-1, 1)
        dense.nonlinear.batchnorm.running_var.uniform_(0.5, 2)
    rng = np.random.default_rng(0)
    clean = rng.standard_normal((crops, dense.linear.in_channels)).astype(np.float32)
    coded = clean.copy()
    coded[:, 0] += 8.0

    def embedded(rows):
        with torch.no_grad():
            return dense(torch.from_numpy(rows)[:, :, None])[:, :, 0].double().numpy()

    inputs = np.concatenate((clean, coded, 100 * np.ones_like(clean[:1])))
    before = np.array([*range(crops), *range(crops), -1])
    return clean, coded, embedded, (inputs, before)


def test_the_last_layer_learns_what_a_condition_does(monkeypatch):
    """Crops 0 to 199 are clean, 200 to 399 the same through a codec that adds a constant to the
    embedding's inputs, and the last one is left out.
    """
    monkeypatch.syspath_prepend(FOLDER)
    module = importlib.import_module("last_layer")
    encoder = built_encoder("campplus")
    clean, coded, embedded, crops = last_layer_of(encoder, 200)
    first = embedded(clean)
    apart = np.abs(embedded(coded) - first).mean()
    changed = module.refitted(encoder, *crops)
    assert set(changed) < set(encoder.state_dict())
    encoder.load_state_dict(changed, strict=False)
    assert np.abs(embedded(coded) - first).mean() < 0.7 * apart
    assert np.abs(embedded(clean) - first).mean() < 0.1 * apart


def test_what_a_codec_changes_counts_less(monkeypatch):
    """Each direction is divided by the standard deviation of what the codec adds along it."""
    monkeypatch.syspath_prepend(FOLDER)
    module = importlib.import_module("last_layer")
    encoder = built_encoder("campplus")
    clean, coded, embedded, crops = last_layer_of(encoder, 100)
    first = embedded(clean)
    added = (embedded(coded) - first).mean(axis=0)
    along = added / np.linalg.norm(added)
    changed = module.whitened(encoder, *crops)
    assert set(changed) < set(encoder.state_dict())
    encoder.load_state_dict(changed, strict=False)
    second = embedded(clean)
    factor = (len(added) + module.FLOOR) ** -0.5  # all of the variance is in this direction
    assert second @ along == pytest.approx(factor * (first @ along), abs=1e-4)
    other = np.eye(len(along)) - np.outer(along, along)
    assert second @ other == pytest.approx(module.FLOOR**-0.5 * (first @ other), abs=1e-4)
    assert (embedded(coded) - second).mean(axis=0) == pytest.approx(factor * added, abs=1e-4)


def test_the_crops_of_a_whitening_are_one_clean_and_one_of_each_condition(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(FOLDER)
    module = importlib.import_module("whiten")
    rng = np.random.default_rng(0)
    path, noises = tmp_path / "a.wav", tmp_path / "noises"
    noises.mkdir()
    for file in (path, noises / "noise.wav"):
        write_audio(file, rng.uniform(-0.5, 0.5, 16000).astype(np.float32))
    noise = Augmenter(str(noises), "", snr_offset=10.0, level_range=10.0)
    crops = module.conditioned(str(path), 3, noise)
    assert crops.shape == (2 + len(module.CODECS), module.SAMPLES)
    assert crops.dtype == np.float32
    assert np.array_equal(crops[0, :16000], crops[0, 16000:32000])  # short speech is repeated
    assert all(np.abs(crop - crops[0]).max() > 1e-3 for crop in crops[1:])


def test_two_people_are_told_from_one(monkeypatch):
    """Of the windows of one voice, every stretch; of two, stretches that do not agree."""
    monkeypatch.syspath_prepend(FOLDER)
    module = importlib.import_module("second_speaker")
    one, other = np.eye(2)
    assert module.of_one(np.stack([one] * 6)) == pytest.approx([1.0] * 7)
    assert min(module.of_one(np.stack([one] * 4 + [other] * 2))) == pytest.approx(0.0)
