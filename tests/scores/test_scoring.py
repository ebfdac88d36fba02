"""Scores of trials: golden values of multi-crop scoring and s-norm, enrolments by hand,
calibration, fusion, and decisions.
"""

import numpy as np
import pytest

from sasv import load_model
from sasv.calibration import Backend, fit_backend
from sasv.cli import main
from sasv.commands import (
    CalibrateOptions,
    EmbedOptions,
    EvaluateOptions,
    VerifyOptions,
    calibrate,
    embed,
    evaluate,
    verify,
)
from sasv.core.errors import SasvError
from sasv.metrics import COST_MODELS, Measure, cllr
from sasv.runtime.embedder import crop_vectors
from sasv.scores import Cohort, Scoring, score_embeddings
from sasv.scores.normalise import cohort_statistics, s_norm
from sasv.tables import Enrolments, Table, Trials, load_scores

TRACK_2, PAPER = COST_MODELS["asvspoof5"], COST_MODELS["a-dcf-paper"]


def test_multi_crop_scores_are_golden(golden, fill):
    crops = fill.fill_array("tta", (20, 10, 192), 0)
    vectors = crop_vectors(crops)
    left, right = golden["score/trials"].T
    np.testing.assert_allclose(
        (vectors[left] * vectors[right]).sum(axis=1), golden["score/tta"], atol=1e-5
    )


def test_adaptive_s_norm_is_golden(golden, fill):
    first = fill.fill_array("tta", (20, 10, 192), 0)[:, 0]
    directions = first / np.linalg.norm(first, axis=1, keepdims=True)
    left, right = golden["score/trials"].T
    scores = (directions[left] * directions[right]).sum(axis=1)
    cohort = Cohort.build(fill.fill_array("cohort", (300, 192), 0))
    found = s_norm(scores, directions, directions, left, right, cohort, 100)
    np.testing.assert_allclose(found, golden["score/asnorm_top100"], atol=1e-5)


def test_cohort_statistics_by_hand():
    cohort = Cohort(np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
    mean, deviation = cohort_statistics(
        np.array([[1.0, 0.0]]), cohort, 2
    )  # the two highest: 1 and 0
    assert (mean[0], deviation[0]) == (0.5, pytest.approx(np.sqrt(0.5)))
    mean, deviation = cohort_statistics(np.array([[1.0, 0.0]]), cohort, 0)
    assert (mean[0], deviation[0]) == (0.0, 1.0)
    by_speaker = Cohort.build(np.array([[2.0, 0.0], [0.0, 2.0], [0.0, 3.0]]), ["a", "a", "b"])
    np.testing.assert_allclose(by_speaker.vectors, [[np.sqrt(0.5), np.sqrt(0.5)], [0, 1]])
    with pytest.raises(SasvError, match="at least two"):
        Cohort.build(np.ones((1, 2)))
    with pytest.raises(SasvError, match="the cohort has a single speaker"):
        Cohort.build(np.ones((2, 2)), ["a", "a"])
    with pytest.raises(SasvError, match="top 2"):
        cohort_statistics(np.ones((1, 2)), cohort, 1)


def trial_tables():
    enrolments = Enrolments(Table.build({"speaker": ["x"], "utterances": ["a,b"]}))
    trials = Trials(Table.build({"speaker": ["x"], "utterance": ["t"], "label": ["target"]}))
    return np.array([[3.0, 0.0], [0.0, 1.0], [2.0, 0.0]]), ["a", "b", "t"], enrolments, trials


@pytest.mark.parametrize(
    "enrolment, expected",
    [
        ("mean", 3 / np.sqrt(10)),  # mean of the raw (3, 0) and (0, 1)
        ("normalised", np.sqrt(0.5)),  # of (1, 0) and (0, 1)
        ("scores", 0.5),  # cosines 1 and 0
    ],
)
def test_enrolments_by_hand(enrolment, expected):
    found = score_embeddings(*trial_tables(), scoring=Scoring(enrolment))
    assert found.tolist() == pytest.approx([expected])


def test_unknown_enrolment_is_reported():
    with pytest.raises(SasvError, match="use one of: mean, normalised, scores"):
        Scoring("median")


def options(corpus, out, **changes):
    names = {"utterances": "utterances", "enrolments": "enrolments_dev", "trials": "trials_dev"}
    tables = {option: str(corpus / f"{name}.tsv") for option, name in names.items()}
    return EvaluateOptions(out=str(out), plot=False, intervals=0, **(tables | changes))


def test_evaluate_with_crops_is_the_mean_over_all_pairs(trained, corpus, tmp_path):
    checkpoint = str(trained / "model.safetensors")
    evaluate(options(corpus, tmp_path, model=checkpoint, crops=3, crop_seconds=0.5))
    scores = load_scores(tmp_path / "scores.tsv")
    model = load_model(checkpoint)
    row = scores.table
    speaker, utterance = row.text("speaker", 0), row.text("utterance", 0)

    def crops(name):
        wave = model.read(str(corpus / "audio" / f"{name}.wav"))
        starts = np.linspace(0, len(wave) - 8000, 3).astype(int)
        vectors = np.stack([model.embed(wave[start : start + 8000]) for start in starts])
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    test = crops(utterance)
    expected = np.mean([crops(f"{speaker}-{number}") @ test.T for number in (0, 1)])
    assert scores.values[0] == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_s_norm_is_the_same_whoever_embeds_the_cohort(trained, corpus, tmp_path):
    """The scores are bit-identical whether the cohort is embedded by one process or in shards
    beforehand.
    """
    checkpoint = str(trained / "model.safetensors")
    cohort = {"cohort": str(corpus / "utterances.tsv"), "cohort_where": "split=train", "top": 5}
    evaluate(options(corpus, tmp_path / "one", model=checkpoint, **cohort))
    for shard in ("1/3", "2/3", "3/3"):
        out = str(tmp_path / "two" / "cohort")
        embed(EmbedOptions(cohort["cohort"], out, checkpoint, where="split=train", shard=shard))
    evaluate(options(corpus, tmp_path / "two", model=checkpoint, **cohort))
    one, two = ((tmp_path / name / "scores.tsv").read_bytes() for name in ("one", "two"))
    assert one == two
    evaluate(options(corpus, tmp_path / "people", model=checkpoint, **cohort, cohort_by="speaker"))
    assert (tmp_path / "people" / "scores.tsv").read_bytes() != one


def drawn(seed=0, size=4000):
    """Return scores whose log-likelihood ratio is known, from normal distributions with distance
    2.
    """
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, size, p=[0.3, 0.4, 0.3])
    speaker = rng.standard_normal(size) + 2.0 * (labels != 1)
    countermeasure = rng.standard_normal(size) + 2.0 * (labels != 2)
    return labels, {"asv_score": speaker, "cm_score": countermeasure}


def test_calibration_finds_the_log_likelihood_ratio():
    """For normal distributions with means 2 and 0 and equal variances, the log-likelihood ratio is
    2 (x - 1).
    """
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 20_000)
    scores = rng.standard_normal(40_000) + 2.0 * (labels == 0)
    backend = fit_backend({"score": scores}, labels, COST_MODELS["sre-0.05"])
    assert backend.parts[0].weights[0] == pytest.approx(2, abs=0.1)
    assert backend.parts[0].offset == pytest.approx(-2, abs=0.1)
    llrs = backend({"score": scores})
    assert cllr(llrs, labels == 0) < 1.01 * Measure(scores, labels, brief=False)()["min_cllr"]
    again = fit_backend({"score": 0.1 * scores - 3}, labels, COST_MODELS["sre-0.05"])(
        {"score": 0.1 * scores - 3}
    )
    np.testing.assert_allclose(again, llrs, atol=1e-3)  # whatever the scale of the scores


@pytest.mark.parametrize("kind", ["logistic", "nonlinear"])
def test_fusion_improves_and_its_threshold_is_near_the_optimum(kind):
    """It gains if both kinds of error matter. For costs with few nontargets, the second score alone
    is best.
    """
    labels, columns = drawn()
    backend = fit_backend(columns, labels, PAPER, kind)
    others, fresh = drawn(1)
    fused = Measure(backend(fresh), others, costs=[PAPER], llr=True)()
    alone = [
        Measure(fresh[name], others, costs=[PAPER])()["min_a_dcf.a-dcf-paper"] for name in fresh
    ]
    assert fused["min_a_dcf.a-dcf-paper"] < min(alone)
    assert fused["act_a_dcf.a-dcf-paper"] < 1.1 * fused["min_a_dcf.a-dcf-paper"]


def test_nonlinear_fusion_by_hand():
    """The mixture of both likelihood ratios is -log((1 - s) exp(-speaker) + s
    exp(-countermeasure)).
    """
    labels, columns = drawn()
    backend = fit_backend(columns, labels, TRACK_2, "nonlinear")
    speaker, countermeasure = (part(columns) for part in backend.parts)
    share = 0.5 / 0.595
    expected = -np.log((1 - share) * np.exp(-speaker) + share * np.exp(-countermeasure))
    np.testing.assert_allclose(backend(columns), expected, rtol=1e-9)


def test_saved_back_end_reports_missing_columns(tmp_path):
    labels, columns = drawn()
    backend = fit_backend(columns, labels, TRACK_2, "nonlinear", source="drawn")
    backend.save(tmp_path / "b.json")
    again = Backend.load(tmp_path / "b.json")
    np.testing.assert_array_equal(again(columns), backend(columns))
    assert again.threshold == backend.threshold == pytest.approx(np.log(0.595 / 0.9405))
    with pytest.raises(
        SasvError, match="needs the column cm_score, but the scores have only: asv_score"
    ):
        again({"asv_score": columns["asv_score"]})
    (tmp_path / "b.json").write_text("{}")
    with pytest.raises(SasvError, match=r"b.json: this is not a calibration or fusion"):
        Backend.load(tmp_path / "b.json")
    with pytest.raises(SasvError, match="calibration needs spoof trials"):
        fit_backend(columns, np.where(labels == 2, 1, labels), TRACK_2)
    with pytest.raises(SasvError, match="needs two scores"):
        fit_backend({"score": columns["asv_score"]}, labels, TRACK_2, "nonlinear")
    with pytest.raises(SasvError, match="NaN or infinity"):
        fit_backend({"score": columns["asv_score"] * np.nan}, labels, TRACK_2)


def test_perfectly_separated_scores_can_be_calibrated():
    labels = np.array([0, 0, 1, 2])
    found = fit_backend({"score": np.array([3.0, 2.0, 0.0, 1.0])}, labels, TRACK_2)
    assert np.isfinite(found.parts[0].weights).all() and found.parts[0].weights[0] > 0


def test_quality_as_side_information(trained, corpus, tmp_path):
    """The measures are written by evaluate and used in calibration, and verify computes the same
    from the recordings.
    """
    checkpoint = str(trained / "model.safetensors")
    evaluate(options(corpus, tmp_path, model=checkpoint, quality=True))
    scores = load_scores(tmp_path / "scores.tsv")
    assert scores.numbers("log_seconds")[0] == pytest.approx(np.log(1.2), abs=1e-3)
    assert scores.numbers("log_enrolments")[0] == pytest.approx(np.log(2), abs=1e-5)
    backend = calibrate(
        CalibrateOptions(
            str(tmp_path / "scores.tsv"),
            quality=["log_seconds", "norm"],
            model=checkpoint,
            model_out=str(tmp_path / "calibrated.safetensors"),
            out=str(tmp_path / "b.json"),
        )
    )
    expected = backend({name: scores.numbers(name) for name in backend.columns})
    speaker, utterance = scores.table.text("speaker", 0), scores.table.text("utterance", 0)
    audio = [
        str(corpus / "audio" / f"{name}.wav")
        for name in (f"{speaker}-0", f"{speaker}-1", utterance)
    ]
    found = verify(
        VerifyOptions(audio, str(tmp_path / "calibrated.safetensors"), min_speech=0, device="cpu")
    )
    assert found["llr"] == pytest.approx(expected[0], abs=0.01)


def test_verify_decides_by_the_costs_in_the_checkpoint(trained, corpus, tmp_path, capsys):
    checkpoint = str(trained / "model.safetensors")
    evaluate(options(corpus, tmp_path, model=checkpoint))
    fit = CalibrateOptions(
        str(tmp_path / "scores.tsv"),
        costs="a-dcf-paper",
        model=checkpoint,
        model_out=str(tmp_path / "c.safetensors"),
    )
    backend = calibrate(fit)
    capsys.readouterr()
    audio = [str(corpus / "audio" / f"s6-{number}.wav") for number in (0, 1, 2)]
    words = ["--model", str(tmp_path / "c.safetensors"), "--min-speech", "0", "--device", "cpu"]
    assert main(["verify", *audio, *words]) == 0
    out = capsys.readouterr().out
    found = verify(
        VerifyOptions(audio, str(tmp_path / "c.safetensors"), min_speech=0, device="cpu")
    )
    assert "LLR" in out and "a-dcf-paper: priors target 0.9" in out
    assert found["llr_threshold"] == pytest.approx(backend.costs.bayes_threshold)
    # the threshold of the score is that of the LLR, through the line of the calibration
    assert (found["score"] >= found["threshold"]) == (found["llr"] >= found["llr_threshold"])
    assert found["decision"] == ("accept" if found["llr"] >= found["llr_threshold"] else "reject")
    assert "calibrated on scores.tsv" in found["threshold_source"]
    options_given = VerifyOptions(
        audio, str(tmp_path / "c.safetensors"), 2.0, min_speech=0, json=True, device="cpu"
    )
    given = verify(options_given)
    assert given["decision"] == "reject"
    assert given["llr"] == pytest.approx(found["llr"])


def test_calibrate_refuses_what_a_checkpoint_cannot_carry(tmp_path, caplog):
    path = tmp_path / "s.tsv"
    labels, columns = drawn(size=300)
    cells = {name: [f"{value:.6g}" for value in values] for name, values in columns.items()}
    names = [("target", "nontarget", "spoof")[label] for label in labels]
    rows = {
        "speaker": ["x"] * 300,
        "utterance": list(map(str, range(300))),
        "label": names,
        "score": cells["asv_score"],
    }
    Table.build(rows | cells).save(path)
    model = {"model": "m.safetensors", "model_out": "n.safetensors"}
    with pytest.raises(SasvError, match="can only contain the calibration of its own score"):
        calibrate(CalibrateOptions(str(path), columns=["asv_score", "cm_score"], **model))
    with pytest.raises(SasvError, match="--apply FILE and --result FILE can only"):
        calibrate(CalibrateOptions(str(path), apply=str(path)))
    with pytest.raises(
        SasvError, match=r"there is no column 'norm'; .*; sasv evaluate --quality writes it"
    ):
        calibrate(CalibrateOptions(str(path), quality=["norm"]))
    falling = rows | {"score": [f"{-float(value):.6g}" for value in rows["score"]]}
    Table.build(falling).save(path)
    with pytest.raises(SasvError, match="targets do not have higher scores there"):
        calibrate(CalibrateOptions(str(path), **model))
    assert "the weight of score is -" in caplog.text and "is this the right file?" in caplog.text


def test_calibrate_applies_to_another_file(tmp_path):
    for seed, name in ((0, "dev"), (1, "eval")):
        labels, columns = drawn(seed, 600)
        cells = {column: [f"{value:.9g}" for value in values] for column, values in columns.items()}
        names = [("target", "nontarget", "spoof")[label] for label in labels]
        speakers = [f"s{row % 7}" for row in range(600)]
        rows = {
            "speaker": speakers,
            "utterance": list(map(str, range(600))),
            "label": names,
            "codec": ["-"] * 600,
        }
        Table.build(rows | {"score": cells["asv_score"]} | cells).save(tmp_path / f"{name}.tsv")
    fused = tmp_path / "fused.tsv"
    backend = calibrate(
        CalibrateOptions(
            str(tmp_path / "dev.tsv"),
            kind="nonlinear",
            columns=["asv_score", "cm_score"],
            apply=str(tmp_path / "eval.tsv"),
            result=str(fused),
        )
    )
    scores = load_scores(fused)
    expected = backend({name: scores.numbers(name) for name in ("asv_score", "cm_score")})
    np.testing.assert_allclose(scores.values, expected, rtol=1e-6)
    assert "codec" in scores.table.columns


@pytest.mark.slow
def test_a_countermeasure_scores_utterances(trained, corpus, tmp_path):
    """After two epochs of Stage 2, every utterance is compared with the spoof class."""
    from conftest import tiny_options
    from sasv.commands import train

    table = Table.load(corpus / "utterances.tsv")
    audio = [str(corpus / path) for path in table.texts("path")]
    cells = {name: table.texts(name) for name in table.columns} | {
        "path": audio,
        "split": ["train"] * len(table),
    }
    Table.build(cells).save(tmp_path / "u.tsv")
    changes = {"utterances": str(tmp_path / "u.tsv"), "loss": "sasv", "spoof_pairs": 4, "epochs": 1}
    checkpoint = str(train(tiny_options(corpus, tmp_path / "run", **changes)))
    out = EvaluateOptions(
        str(tmp_path / "u.tsv"), str(tmp_path / "cm"), model=checkpoint, plot=False, intervals=0
    )
    result = evaluate(out)
    assert result["task"] == "cm" and result["bonafide"] == 48 and result["cm_eer"] is not None
    scores = load_scores(tmp_path / "cm" / "scores.tsv")
    assert scores.task == "cm" and (np.abs(scores.values) <= 1).all()
    with pytest.raises(SasvError, match="trained without spoofed speech"):
        evaluate(
            EvaluateOptions(
                str(tmp_path / "u.tsv"),
                str(tmp_path / "x"),
                model=str(trained / "model.safetensors"),
            )
        )
