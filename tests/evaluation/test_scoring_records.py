"""The record of how scores were made is kept with them in score files, calibrations, and
checkpoints.
"""

import json
import shutil

import numpy as np
import pytest
import soundfile

from sasv.audio import read_audio
from sasv.checkpoints import load_checkpoint
from sasv.commands import (
    CalibrateOptions,
    EvaluateOptions,
    VerifyOptions,
    calibrate,
    evaluate,
    verify,
)
from sasv.core.errors import SasvError, TableError
from sasv.scores import Cohort, Scoring, cohort_statistics
from sasv.scores.scoring import load_scoring, save_scoring, sidecar
from sasv.tables import Table


@pytest.fixture
def checkpoint(trained):
    return str(trained / "model.safetensors")


def options(corpus, out, **changes):
    names = {"utterances": "utterances", "enrolments": "enrolments_dev", "trials": "trials_dev"}
    tables = {option: str(corpus / f"{name}.tsv") for option, name in names.items()}
    return EvaluateOptions(out=str(out), plot=False, intervals=0, **(tables | changes))


def test_a_channel_is_chosen_where_the_table_names_none(checkpoint, corpus, tmp_path):
    """With speech on the second of two channels, the scores are those of the speech alone."""
    shutil.copytree(corpus, tmp_path / "two", ignore=shutil.ignore_patterns("s[0-5]-*"))
    for path in (tmp_path / "two" / "audio").iterdir():
        wave = read_audio(path)
        both = np.stack([0.2 * np.roll(wave[::-1], 99), wave], axis=1)
        soundfile.write(path, both, 16000, subtype="FLOAT")
    evaluate(options(corpus, tmp_path / "mono", model=checkpoint))
    evaluate(options(tmp_path / "two", tmp_path / "second", model=checkpoint, channel="1"))
    scores = [Table.load(tmp_path / name / "scores.tsv") for name in ("mono", "second")]
    np.testing.assert_allclose(*(table.numbers("score") for table in scores), atol=1e-3)
    with pytest.raises(SasvError, match="channel"):
        evaluate(options(corpus, tmp_path / "x", model=checkpoint, channel="left"))


@pytest.mark.slow
def test_a_checkpoint_scores_as_its_calibration_was_made(checkpoint, corpus, tmp_path):
    """With normalised enrolment, crops, and s-norm, verify computes the same scores as evaluate,
    from the stored cohort.
    """
    people = {"cohort": str(corpus / "utterances.tsv"), "cohort_where": "split=train", "top": 5}
    made = {"enrolment": "normalised", "crops": 2, "crop_seconds": 0.5}
    evaluate(options(corpus, tmp_path / "e", model=checkpoint, **made, **people))
    out = str(tmp_path / "c.safetensors")
    calibrate(CalibrateOptions(str(tmp_path / "e" / "scores.tsv"), model=checkpoint, model_out=out))
    specification = load_checkpoint(out).specification
    assert (
        specification.scoring["enrolment"] == "normalised"
        and specification.scoring["cohort"]["top"] == 5
    )
    table = Table.load(tmp_path / "e" / "scores.tsv")
    speaker, utterance = table.text("speaker", 0), table.text("utterance", 0)
    audio = [
        str(corpus / "audio" / f"{name}.wav")
        for name in (f"{speaker}-0", f"{speaker}-1", utterance)
    ]
    cohort = str(tmp_path / "e" / "cohort" / "cohort.npz")
    found = verify(VerifyOptions(audio, out, min_speech=0, cohort=cohort, device="cpu"))
    assert found["score"] == pytest.approx(table.numbers("score")[0], abs=1e-3)
    with pytest.raises(SasvError, match="give this cohort"):
        verify(VerifyOptions(audio, out, min_speech=0, device="cpu"))


def test_calibrating_with_quality_leaves_no_stale_threshold(checkpoint, corpus, tmp_path):
    evaluate(options(corpus, tmp_path, model=checkpoint, quality=True))
    scores = str(tmp_path / "scores.tsv")
    first, second = str(tmp_path / "1.safetensors"), str(tmp_path / "2.safetensors")
    calibrate(CalibrateOptions(scores, model=checkpoint, model_out=first))
    calibrate(
        CalibrateOptions(scores, quality=["norm"], costs="sre-0.05", model=first, model_out=second)
    )
    one, two = (load_checkpoint(path).specification for path in (first, second))
    assert one.threshold is not None and two.threshold is None
    assert "asvspoof5" in one.threshold_source and "sre-0.05" in two.threshold_source


def scores_file(path, seed=0):
    rng = np.random.default_rng(seed)
    labels = ["target", "nontarget", "spoof"] * 30
    values = rng.standard_normal(90) + np.array([2.0 * (label == "target") for label in labels])
    cells = {"speaker": ["x"] * 90, "utterance": list(map(str, range(90))), "label": labels}
    Table.build(cells | {"score": [f"{value:.5f}" for value in values]}).save(path)
    return str(path)


def test_limits_of_the_calibration_are_stored_with_it(checkpoint, tmp_path):
    """Those that are given replace those of the model; the others stay."""
    scores = scores_file(tmp_path / "scores.tsv")
    first, second = str(tmp_path / "1.safetensors"), str(tmp_path / "2.safetensors")
    limits = {"min_test": 2.0, "min_self_agreement": 0.4}
    calibrate(CalibrateOptions(scores, model=checkpoint, model_out=first, limits=limits))
    limits = {"min_self_agreement": 0.3}
    calibrate(CalibrateOptions(scores, model=first, model_out=second, limits=limits))
    speech = load_checkpoint(second).specification.decision["speech"]
    assert (speech["min_test"], speech["min_self_agreement"]) == (2.0, 0.3)
    with pytest.raises(SasvError, match="stored in a checkpoint"):
        calibrate(CalibrateOptions(scores, limits=limits))
    with pytest.raises(SasvError, match="unknown limits of speech: most_fun"):
        options = CalibrateOptions(scores, model=first, model_out=second, limits={"most_fun": 1.0})
        calibrate(options)


def test_a_calibration_is_not_applied_to_scores_made_otherwise(tmp_path, checkpoint, capsys):
    dev, test = (
        scores_file(tmp_path / name, seed) for seed, name in enumerate(("dev.tsv", "test.tsv"))
    )
    save_scoring(dev, Scoring().to_dict())
    save_scoring(test, Scoring("scores", crops=10).to_dict())
    applied = {"apply": test, "result": str(tmp_path / "r.tsv")}
    with pytest.raises(
        SasvError,
        match=r"test\.tsv: these scores .*enrolment scores, 10 crops .*dev\.tsv, .*whole",
    ):
        calibrate(CalibrateOptions(dev, **applied))
    sidecar(test).unlink()
    calibrate(CalibrateOptions(dev, **applied))
    sidecar(dev).unlink()
    out = str(tmp_path / "c.safetensors")
    calibrate(CalibrateOptions(dev, crops=4, model=checkpoint, model_out=out))
    assert (
        "there is no record of how its scores were made; assuming cosine" in capsys.readouterr().err
    )
    assert load_checkpoint(out).specification.scoring["crops"] == 4
    sidecar(dev).write_text("[]")
    with pytest.raises(
        SasvError, match=r"dev.scoring.json: contains no object; remove it or score again"
    ):
        load_scoring(dev)


def test_cohort_files_that_cannot_be_used_are_named(checkpoint, corpus, tmp_path, capsys):
    root = tmp_path / "c"
    shutil.copytree(corpus, root)
    (root / "audio" / "s0-0.wav").unlink()
    people = {"cohort": str(root / "utterances.tsv"), "cohort_where": "split=train", "top": 5}
    evaluate(options(root, tmp_path / "out", model=checkpoint, **people))
    said = capsys.readouterr().err
    assert "does not use 1 of 36 cohort utterances (s0-0: " in said and "no such file" in said
    assert (
        json.loads(sidecar(tmp_path / "out" / "scores.tsv").read_text())["scoring"]["cohort"][
            "size"
        ]
        == 35
    )


def test_a_cohort_without_spread_is_refused():
    with pytest.raises(SasvError, match="are all equal, but s-norm needs different speakers"):
        Cohort.build(np.tile([[1.0, 2.0]], (5, 1)))
    with pytest.raises(SasvError, match="zero or not finite"):
        Cohort.build(np.array([[1.0, 0.0], [np.nan, 0.0]]))
    two_kinds = Cohort(np.array([[1.0, 0.0]] * 4 + [[-1.0, 0.0]]))
    with pytest.raises(SasvError, match="for 1 of 1 embeddings these are all equal"):
        cohort_statistics(np.array([[1.0, 0.0]]), two_kinds, 3)


def test_evaluate_says_why_files_have_no_embedding(checkpoint, corpus, tmp_path):
    with pytest.raises(TableError, match=r"could not be embedded \(s6-0: .*over the limit of 1 s"):
        evaluate(options(corpus, tmp_path, model=checkpoint, max_seconds=1.0))
