"""Fusion of a speaker system and a countermeasure, from audio: the sum, and a fusion fitted to
development trials.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from conftest import DATA, shared
from sasv.calibration import Backend, fit_backend
from sasv.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from sasv.commands import CalibrateOptions, EvaluateOptions, calibrate, evaluate
from sasv.core.errors import SasvError
from sasv.embeddings.model import load_model
from sasv.encoders import make_encoder, preset
from sasv.metrics import COST_MODELS
from sasv.models import Specification
from sasv.scores.scoring import load_scoring
from sasv.tables import Table, load_scores


@pytest.fixture(scope="module")
def countermeasure(tmp_path_factory):
    """A tiny AASIST with random weights."""
    torch.manual_seed(0)
    encoder = make_encoder("aasist", preset("aasist", "test"))
    torch.nn.init.normal_(encoder.out_layer.weight)
    path = tmp_path_factory.mktemp("aasist") / "cm.safetensors"
    checkpoint = Checkpoint(Specification(**encoder.description()), encoder.state_dict())
    save_checkpoint(path, checkpoint)
    return str(path)


def options(corpus, out, **changes):
    names = {"utterances": "utterances", "enrolments": "enrolments_dev", "trials": "trials_dev"}
    tables = {option: str(corpus / f"{name}.tsv") for option, name in names.items()}
    return EvaluateOptions(
        out=str(out), plot=False, intervals=0, device="cpu", **(tables | changes)
    )


@pytest.fixture(scope="module")
def parts(trained, countermeasure):
    """The options for both systems."""
    return {"model": str(trained / "model.safetensors"), "countermeasure": countermeasure}


@pytest.fixture(scope="module")
def summed(corpus, parts, tmp_path_factory):
    """Folder of the evaluation of the sum."""
    out = tmp_path_factory.mktemp("summed")
    evaluate(options(corpus, out, **parts))
    return out


@pytest.mark.slow
def test_sum_fusion_adds_the_scores_of_both_systems(corpus, parts, summed, tmp_path):
    """Baseline 1 of SASV2022: the sum of the scores of both systems."""
    fused = load_scores(summed / "scores.tsv")
    speaker = options(corpus, tmp_path / "asv", model=parts["model"])
    evaluate(speaker)
    alone = load_scores(tmp_path / "asv" / "scores.tsv")
    model = load_model(parts["countermeasure"], "cpu")
    names = fused.table.texts("utterance")
    files = {name: corpus / "audio" / f"{name}.wav" for name in names}
    scores = {
        name: float(model.bona_fide_scores(model.embed(path)[None])[0])
        for name, path in files.items()
    }
    expected = np.array([scores[name] for name in names])
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(fused.numbers("cm_score"), expected, atol=1e-5)
    np.testing.assert_array_equal(fused.numbers("asv_score"), alone.values)
    np.testing.assert_allclose(
        fused.values, fused.numbers("asv_score") + fused.numbers("cm_score"), atol=1e-7
    )
    scoring, fingerprint = load_scoring(summed / "scores.tsv")
    assert fingerprint == load_model(parts["model"], "cpu").fingerprint
    assert scoring["fusion"]["kind"] == "sum"
    assert scoring["fusion"]["countermeasure"] == model.fingerprint


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "quality"), [("logistic", ""), ("nonlinear", ""), ("logistic", "log_seconds,norm")]
)
def test_a_fitted_fusion_runs_from_audio(corpus, parts, summed, tmp_path, kind, quality):
    """sasv evaluate --fusion computes from audio what sasv calibrate --apply computes from the
    columns.
    """
    development = summed / "scores.tsv"
    if quality:
        evaluate(options(corpus, tmp_path / "dev", quality=True, **parts))
        development = tmp_path / "dev" / "scores.tsv"
    file = str(tmp_path / "fusion.json")
    applied = {"apply": str(development), "result": str(tmp_path / "applied.tsv")}
    columns = "asv_score,cm_score"
    calibrate(
        CalibrateOptions(
            str(development), file, kind=kind, columns=columns, quality=quality, **applied
        )
    )
    evaluate(options(corpus, tmp_path / "e", fusion=file, **parts))
    found = load_scores(tmp_path / "e" / "scores.tsv")
    expected = load_scores(tmp_path / "applied.tsv")
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-4, atol=1e-4)
    assert found.table.texts("cm_score") == expected.table.texts("cm_score")
    assert load_scoring(tmp_path / "e" / "scores.tsv")[0]["fusion"]["kind"] == kind
    assert "cllr" in json.loads((tmp_path / "e" / "metrics.json").read_text())


def test_fused_scores_calibrate_no_checkpoint(parts, summed, tmp_path):
    """A threshold for sums must never be used for cosines."""
    with pytest.raises(SasvError, match="fused with a countermeasure .*sasv evaluate --fusion"):
        calibrate(
            CalibrateOptions(
                str(summed / "scores.tsv"),
                model=parts["model"],
                model_out=str(tmp_path / "m.safetensors"),
            )
        )
    assert not (tmp_path / "m.safetensors").exists()


@pytest.mark.slow
def test_a_fusion_of_other_scores_is_refused(corpus, parts, summed, tmp_path, capsys):
    fusion = tmp_path / "fusion.json"
    fitted = {"kind": "logistic", "columns": "asv_score,cm_score"}
    calibrate(CalibrateOptions(str(summed / "scores.tsv"), str(fusion), **fitted))
    with pytest.raises(SasvError, match="fitted to scores made with .*mean.*made with .*scores"):
        evaluate(options(corpus, summed, fusion=str(fusion), enrolment="scores", **parts))
    backend = Backend.load(fusion)
    backend.scores["model"] = "another"
    backend.save(fusion)
    capsys.readouterr()
    evaluate(options(corpus, summed.parent / "again", fusion=str(fusion), **parts))
    assert "fitted to scores of a different speaker system" in capsys.readouterr().err
    columns = {"score": np.array([1.0, 2.0, 0.0, 0.1]), "norm": np.arange(4.0)}
    labels = np.array([0, 0, 1, 2])
    fit_backend(columns, labels, COST_MODELS["asvspoof5"]).save(fusion)
    with pytest.raises(SasvError, match="fitted to score, norm, so it is not a fusion"):
        evaluate(options(corpus, summed, fusion=str(fusion), **parts))
    fusion.write_text("{}")
    with pytest.raises(SasvError, match="not a calibration or fusion"):
        evaluate(options(corpus, summed, fusion=str(fusion), **parts))


MISTAKES = [
    ({"fusion": "sum"}, "--fusion needs --countermeasure, or a --model"),
    ({"fusion": "sum", "trials": "", "enrolments": ""}, "a fusion needs --enrolments and --trials"),
    ({"countermeasure": "speaker"}, "trained without spoofed speech"),
    ({"fusion": "nowhere.json", "countermeasure": "cm"}, "nowhere.json"),
]


@pytest.mark.parametrize(("changes", "message"), MISTAKES)
def test_mistakes_are_reported_in_one_line(corpus, parts, tmp_path, changes, message):
    systems = {"cm": parts["countermeasure"], "speaker": parts["model"]}
    if "countermeasure" in changes:
        changes = changes | {"countermeasure": systems[changes["countermeasure"]]}
    with pytest.raises(SasvError, match=message):
        evaluate(options(corpus, tmp_path, model=parts["model"], **changes))
    assert not (tmp_path / "embeddings").exists()


@pytest.mark.slow
def test_a_countermeasure_of_whole_utterances_takes_no_crops(corpus, countermeasure, tmp_path):
    tables = {"enrolments": "", "trials": "", "where": "split=dev"}
    with pytest.raises(SasvError, match="whole utterances, not crops"):
        evaluate(options(corpus, tmp_path, model=countermeasure, crops=2, **tables))


@pytest.mark.slow
def test_a_spoof_head_can_be_fused_with_its_own_embedding(corpus, parts, tmp_path):
    """The head, a direction, is put into the checkpoint by hand, and its score is added."""
    checkpoint = load_checkpoint(parts["model"])
    weight = torch.linspace(-1, 1, checkpoint.specification.encoder_options["embedding"])
    checkpoint.head = {"spoof_head.weight": weight, "spoof_head.bias": torch.tensor(0.5)}
    checkpoint.specification = replace(checkpoint.specification, decision=None)
    path = tmp_path / "two-headed.safetensors"
    save_checkpoint(path, checkpoint)
    evaluate(options(corpus, tmp_path / "e", model=str(path), fusion="sum"))
    table = Table.load(tmp_path / "e" / "scores.tsv")
    model = load_model(path, "cpu")
    name = table.text("utterance", 0)
    vector = model.embed(corpus / "audio" / f"{name}.wav")
    expected = vector / np.linalg.norm(vector) @ weight.numpy() + 0.5
    assert table.numbers("cm_score")[0] == pytest.approx(expected, abs=1e-5)
    total = table.numbers("asv_score") + table.numbers("cm_score")
    np.testing.assert_allclose(table.numbers("score"), total, atol=1e-7)


@pytest.mark.slow
@pytest.mark.speech
def test_aasist_without_trials_gives_its_published_scores(tmp_path):
    """Five files of the reference, scored by the command, in batches of unequal lengths."""
    listed = json.loads((DATA / "peers" / "heads.json").read_text())["aasist-l"]["dev_files"]
    expected = np.load(DATA / "peers" / "heads.npz")["aasist-l/dev_scores"]
    speech = shared("speech")
    table = Table.load(speech / "utterances.tsv")
    rows = {name: row for row, name in enumerate(table.texts("utterance"))}
    chosen = table.take(np.array([rows[name] for name in listed[::20]]))
    cells = {name: chosen.texts(name) for name in chosen.columns}
    cells["path"] = [str(speech / path) for path in cells["path"]]
    Table.build(cells).save(tmp_path / "dev.tsv")
    model = str(shared("weights", "aasist-l.pth"))
    evaluate(
        EvaluateOptions(
            str(tmp_path / "dev.tsv"), str(tmp_path / "out"), model=model, plot=False, intervals=0
        )
    )
    found = load_scores(tmp_path / "out" / "scores.tsv")
    assert found.table.texts("utterance") == listed[::20]
    np.testing.assert_allclose(found.values, expected[::20], atol=1e-3)
