"""A spoof head in addition to the speaker loss, and the three classes of a trial, from training to
score files.
"""

import json

import numpy as np
import pytest
import torch

from conftest import tiny_options
from sasv.checkpoints import load_checkpoint
from sasv.cli import main
from sasv.commands import EvaluateOptions, evaluate, train
from sasv.core.errors import SasvError
from sasv.embeddings.extract import Embeddings
from sasv.embeddings.model import load_model
from sasv.metrics import COST_MODELS, cllr
from sasv.tables import Table, load_scores


def trained_with(corpus, folder, **changes):
    """Train for one epoch on the whole tiny corpus, including spoofs; return the path of the
    model.
    """
    values = {"where": "", "spoof_pairs": 2, "epochs": 1, "dev_enrolments": "", "dev_trials": ""}
    return train(tiny_options(corpus, folder, **(values | changes)))


def evaluated(corpus, model, out, trials=True, **changes):
    """Score the development trials, or score all utterances as bona fide or spoofed; return (score
    file, embeddings).
    """
    tables = {
        "enrolments": str(corpus / "enrolments_dev.tsv"),
        "trials": str(corpus / "trials_dev.tsv"),
    }
    options = EvaluateOptions(
        str(corpus / "utterances.tsv"),
        str(out),
        model=str(model),
        plot=False,
        intervals=0,
        device="cpu",
        **(tables if trials else {}),
        **changes,
    )
    evaluate(options)
    return load_scores(out / "scores.tsv"), Embeddings.load(out / "embeddings")


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "kind"), [("sasv", "linear"), ("aamsoftmaxproto", "ocsoftmax")])
def test_evaluate_writes_the_score_of_the_spoof_head(corpus, tmp_path, loss, kind):
    model = trained_with(corpus, tmp_path / "run", loss=loss, spoof_head=kind)
    entries = load_checkpoint(model).head
    weight = entries["spoof_head.weight"].numpy()
    bias = float(entries.get("spoof_head.bias", 0.0))
    if kind == "ocsoftmax":
        weight = weight / np.linalg.norm(weight)

    def expected(embeddings, name):
        vector = embeddings.vectors[embeddings.utterances.index(name)]
        return weight @ vector / np.linalg.norm(vector) + bias

    scores, embeddings = evaluated(corpus, model, tmp_path / "claims")
    tested = scores.table.texts("utterance")
    found = [float(cell) for cell in scores.table.texts("cm_score")]
    assert found == pytest.approx([expected(embeddings, name) for name in tested], abs=1e-6)
    assert "llr" not in scores.table.columns
    scores, embeddings = evaluated(corpus, model, tmp_path / "cm", trials=False)
    names = scores.table.texts("utterance")
    assert scores.values == pytest.approx([expected(embeddings, name) for name in names], abs=1e-6)


@pytest.mark.slow
def test_spoof_head_keeps_the_index_of_the_spoof_class(corpus, tmp_path):
    """Without a spoof head, nothing is added to a score file, and the spoof class serves as the
    countermeasure.
    """
    path = trained_with(corpus, tmp_path / "run", loss="sasv")
    model = load_model(path, "cpu")
    assert model.spoof_head() is None and model.trial_classes() is None
    directions = np.eye(model.dimension, dtype=np.float32)
    np.testing.assert_allclose(model.bona_fide_scores(directions), -model.spoof_direction())
    scores, _ = evaluated(corpus, path, tmp_path / "claims")
    assert "cm_score" not in scores.table.columns


@pytest.mark.slow
def test_the_three_classes_give_a_log_likelihood_ratio(corpus, tmp_path):
    model = trained_with(corpus, tmp_path / "run", loss="three-class")
    scores, _ = evaluated(corpus, model, tmp_path / "claims", spoof_share=0.25)
    entries = load_checkpoint(model).head
    weight, bias = (entries[f"trial_classes.{name}"].double() for name in ("weight", "bias"))
    columns = [
        [float(cell) for cell in scores.table.texts(name)] for name in ("score", "cm_score", "llr")
    ]
    features = torch.tensor(columns[:2], dtype=torch.float64).T
    logits = features @ weight.T + bias
    others = torch.logsumexp(logits[:, 1:] + torch.tensor([0.75, 0.25]).log(), dim=1)
    assert columns[2] == pytest.approx((logits[:, 0] - others).tolist(), abs=1e-5)
    cohort = {"cohort": str(corpus / "utterances.tsv"), "cohort_where": "split=train"}
    normalised, _ = evaluated(corpus, model, tmp_path / "normalised", **cohort)
    assert "cm_score" in normalised.table.columns and "llr" not in normalised.table.columns


@pytest.mark.slow
def test_a_model_of_three_classes_decides_by_their_log_likelihood_ratio(corpus, tmp_path, capsys):
    """verify uses the same score as evaluate, and the metrics are those of the column."""
    model = trained_with(corpus, tmp_path / "run", loss="three-class")
    scores, _ = evaluated(corpus, model, tmp_path / "claims")
    llrs = scores.numbers("llr")
    metrics = json.loads((tmp_path / "claims" / "metrics.json").read_text())
    assert metrics["llr"]["cllr"] == pytest.approx(cllr(llrs, scores.labels == 0), abs=1e-6)
    row = int(np.argmin(llrs))
    speaker, utterance = (scores.table.text(name, row) for name in ("speaker", "utterance"))
    names = (f"{speaker}-0", f"{speaker}-1", utterance)
    files = [str(corpus / "audio" / f"{name}.wav") for name in names]
    arguments = ["verify", *files, "--model", str(model), "--device", "cpu", "--min-speech", "0"]
    capsys.readouterr()
    for costs, name in (([], "asvspoof5"), (["--costs", "a-dcf-paper"], "a-dcf-paper")):
        assert main([*arguments, *costs, "--json", "true"]) == 0
        found = json.loads(capsys.readouterr().out)
        bound = COST_MODELS[name].bayes_threshold
        assert found["llr_threshold"] == bound and found["costs"].startswith(name)
        assert found["threshold"] is None
        assert found["decision"] == ("accept" if found["llr"] >= bound else "reject")
        if not costs:
            assert found["llr"] == pytest.approx(llrs[row], abs=1e-3)
    assert main([*arguments, "--threshold", "0.999"]) == 0
    assert capsys.readouterr().out.startswith(("reject spoof: score", "reject speaker: score"))


def test_the_spoof_head_learns_what_is_spoofed(corpus, tmp_path):
    """The weight scales its part of the loss. A loss with its own spoof head does not accept
    another one.
    """
    from sasv.training.modules import make_modules

    options = tiny_options(
        corpus, tmp_path, loss="sasv", spoof_head="linear", spoof_head_weight=2.0
    )
    encoder, head, _ = make_modules(options, options, ["a", "b", "spoof"])
    embeddings, labels = torch.randn(3, 2, encoder.dimension), torch.tensor([0, 1, 2])
    expected = head(embeddings, labels).value + 2.0 * head.spoof_head(embeddings, labels == 2)
    torch.testing.assert_close(head.total(embeddings, labels).value, expected)
    for loss in ("three-class", "ocsoftmax"):
        changed = tiny_options(corpus, tmp_path, loss=loss, spoof_head="linear")
        with pytest.raises(SasvError, match=f"the loss {loss} already has a spoof head"):
            make_modules(changed, changed, ["a", "b", "spoof"])


@pytest.mark.slow
def test_a_three_way_calibration_from_training_to_verdicts(corpus, tmp_path, capsys):
    """verify gives the same outcomes as evaluate; evaluate and report count the outcomes."""
    model = trained_with(corpus, tmp_path / "run", loss="sasv", spoof_head="linear")
    scores, _ = evaluated(corpus, model, tmp_path / "before", quality=True)
    for column, weight in (("score", 0.5), ("cm_score", 0.5)):  # a tiny model may know nothing
        values = scores.numbers(column) + weight * (scores.labels == 0)
        values -= weight * (scores.labels == (1 if column == "score" else 2))
        scores = with_column(scores, column, values)
    scores.table.save(tmp_path / "before" / "scores.tsv")
    ready = tmp_path / "ready.safetensors"
    arguments = ["calibrate", str(tmp_path / "before" / "scores.tsv"), "--kind", "three-way"]
    arguments += ["--quality", "[norm]", "--model", str(model)]
    assert main([*arguments, "--out", str(tmp_path / "x.json")]) == 2
    assert main([*arguments, "--model-out", str(ready)]) == 0
    assert "spoof LLR" in capsys.readouterr().err
    record = load_checkpoint(ready).specification.decision
    assert record["three_way"]["costs"]["name"] == "asvspoof5" and record["threshold"] is not None
    scores, _ = evaluated(corpus, ready, tmp_path / "after")
    assert {"speaker_llr", "spoof_llr", "llr", "outcome"} <= set(scores.table.columns)
    metrics = json.loads((tmp_path / "after" / "metrics.json").read_text())
    counts = metrics["outcomes"]["counts"]
    assert sum(counts["target"].values()) == metrics["targets"]
    assert main(["report", str(tmp_path / "after"), "--out", str(tmp_path / "page")]) == 0
    assert "Outcomes" in (tmp_path / "page" / "report.md").read_text()
    for row in (0, len(scores.labels) - 1):
        speaker, utterance = (scores.table.text(name, row) for name in ("speaker", "utterance"))
        names = (f"{speaker}-0", f"{speaker}-1", utterance)
        files = [str(corpus / "audio" / f"{name}.wav") for name in names]
        shared = ["--model", str(ready), "--device", "cpu", "--min-speech", "0", "--json", "true"]
        capsys.readouterr()
        status = main(["verify", *files, *shared])
        found = json.loads(capsys.readouterr().out)
        assert found["outcome"] == scores.table.text("outcome", row)
        assert status == (2 if found["outcome"] == "inconclusive" else 0)
        for name in ("speaker_llr", "spoof_llr", "llr"):
            assert found[name] == pytest.approx(scores.numbers(name)[row], abs=1e-4)
        assert main(["detect", files[-1], *shared]) == 0
        (verdict,) = json.loads(capsys.readouterr().out)
        assert verdict["spoof_llr"] == pytest.approx(found["spoof_llr"], abs=1e-4)
        assert verdict["outcome"] in ("bonafide", "spoof", "inconclusive")
    assert main(["detect", files[-1], "--model", str(model)]) == 2
    assert "the model has no calibrated spoof score" in capsys.readouterr().err


def with_column(scores, name, values):
    """Return scores with different values in a column."""
    cells = {column: scores.table.texts(column) for column in scores.table.columns}
    cells[name] = [f"{value:.9g}" for value in values]
    return type(scores)(Table.build(cells, scores.table.name))
