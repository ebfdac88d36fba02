"""The verifier: scores are computed in one way, and a decision never fails open."""

import json
from dataclasses import replace

import numpy as np
import pytest

from conftest import shared
from sasv import load_model
from sasv.audio import read_audio, write_audio
from sasv.calibration import fit_backend
from sasv.checkpoints import load_checkpoint, save_checkpoint, store
from sasv.cli import main
from sasv.core.errors import CheckpointError, SasvError
from sasv.corpora.base import MIN_SPEECH
from sasv.decision import Outcome, Recording, SpeechLimits, Verifier
from sasv.metrics import COST_MODELS
from sasv.models import Specification
from sasv.scores import Cohort, Scoring, SpoofHead, ThreeClass, TrialClasses, score_trials
from sasv.weights.catalogue import DEFAULT

RATE = 16000


def recording(vector, name="a.wav", speech=3.0, **facts):
    return Recording(
        name, None if vector is None else np.array(vector, np.float32), 4.0, speech, **facts
    )


GOOD = recording([1.0, 0.0])
VERIFIER = Verifier(threshold=0.5, threshold_source="drawn")


def calibration():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 200)
    scores = rng.standard_normal(600) * 0.1 + 0.7 * (labels == 0)
    return fit_backend({"score": scores}, labels, COST_MODELS["asvspoof5"], source="dev")


def test_verifier_scores_equal_those_of_trial_tables():
    vectors = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
    expected = score_trials(
        vectors[:2].mean(axis=0)[None], vectors[2:], np.array([0]), np.array([0])
    )
    assert VERIFIER.score(vectors[:2], vectors[2]) == pytest.approx(float(expected[0]), abs=1e-6)
    same = VERIFIER.score([vectors[0]], 3 * vectors[0])
    assert same == pytest.approx(1.0) and same <= 1.0


def test_verdicts():
    assert VERIFIER.decide([GOOD], recording([1.0, 0.2])).outcome is Outcome.ACCEPT
    rejected = VERIFIER.decide([GOOD], recording([0.0, 1.0]))
    assert (rejected.outcome, rejected.accepted, rejected.outcome.decision) == (
        Outcome.REJECT,
        False,
        "reject",
    )
    assert [reason.code for reason in rejected.reasons] == ["below_threshold"]
    calibrated = VERIFIER.calibrated(calibration()).decide([GOOD], recording([1.0, 0.2]))
    assert calibrated.llrs["sasv"] > calibrated.llr_thresholds["sasv"] and calibrated.accepted
    given = (
        VERIFIER.calibrated(calibration()).with_threshold(1.0).decide([GOOD], recording([1.0, 0.2]))
    )
    assert given.outcome is Outcome.REJECT and "llr" in given.to_dict()
    with pytest.raises(SasvError, match="neither a threshold nor a calibration"):
        Verifier().decide([GOOD], GOOD)


THREE = ThreeClass(
    SpoofHead(np.array([0.0, 2.0]), 0.25),
    TrialClasses(np.array([[8.0, 1.0], [0.0, 1.0], [4.0, -1.0]]), np.array([-4.0, 0.0, -2.0])),
)


def test_three_classes_decide_by_their_log_likelihood_ratio():
    """Computed by hand: cosine 0.6, spoof score 2 * 0.8 + 0.25 = 1.85, logits 2.65, 1.85, -1.45."""
    costs = COST_MODELS["a-dcf-paper"]  # weights 0.9, 0.5, 1.0: two thirds of the others are spoofs
    verifier = Verifier(three_class=THREE, costs=costs, threshold=0.9)
    decision = verifier.decide([GOOD], recording([0.6, 0.8]))
    expected = 2.65 - np.log(np.exp(1.85) / 3 + 2 * np.exp(-1.45) / 3)
    assert decision.llrs["sasv"] == pytest.approx(expected, abs=1e-6)
    assert decision.accepted and decision.llr_thresholds["sasv"] == pytest.approx(np.log(1.5 / 0.9))
    assert not decision.thresholds and "three-class loss" in decision.threshold_source
    other = verifier.decide([GOOD], recording([-0.6, 0.8]))
    assert other.outcome is Outcome.REJECT_SPEAKER and other.outcome.decision == "reject"
    spoof = verifier.decide([GOOD], recording([0.6, -0.8]))
    assert spoof.outcome is Outcome.REJECT_SPOOF
    given = verifier.with_threshold(0.7).decide([GOOD], recording([0.6, 0.8]))
    assert given.outcome is Outcome.REJECT_SPEAKER and given.thresholds == {"sasv": 0.7}
    calibrated = verifier.calibrated(calibration()).decide([GOOD], recording([0.6, 0.8]))
    assert calibrated.costs.startswith("asvspoof5") and calibrated.thresholds
    people = Cohort.build(np.eye(2), names=["a", "b"], source="people.tsv")
    normalised = Verifier(Scoring(cohort=people, top=2), three_class=THREE)
    assert not normalised.decides


NEVER = {
    "no_speech": recording([1.0, 0.0], speech=0.0),
    "too_little_speech": recording([1.0, 0.0], speech=0.3),
    "no_embedding": recording(None),
    "broken_embedding": recording([np.nan, 0.0]),
}


@pytest.mark.parametrize("role", ["enrolment", "one of three", "test"])
@pytest.mark.parametrize("vector", [[np.nan, 0.0], [np.inf, 1.0], [0.0, 0.0], [1e30, 1e30]])
def test_broken_embeddings_are_never_compared(role, vector):
    broken = recording(vector)
    enrolment = {"enrolment": [broken], "one of three": [GOOD, broken, GOOD], "test": [GOOD]}[role]
    decision = VERIFIER.decide(enrolment, broken if role == "test" else GOOD)
    assert (
        decision.outcome is Outcome.INCONCLUSIVE and not decision.accepted and not decision.scores
    )
    assert {reason.code for reason in decision.reasons} == {"broken_embedding"}


@pytest.mark.parametrize("code", NEVER)
def test_recordings_without_speech_are_never_compared(code):
    for enrolment, test in (
        ([NEVER[code]], GOOD),
        ([GOOD, NEVER[code]], GOOD),
        ([GOOD], NEVER[code]),
    ):
        decision = VERIFIER.decide(enrolment, test)
        assert decision.outcome is Outcome.INCONCLUSIVE and code in {
            reason.code for reason in decision.reasons
        }
        values = decision.to_dict()
        assert values["decision"] == "inconclusive" and values["score"] is None
        json.dumps(values, allow_nan=False)


def test_prepare_and_verify_share_the_minimum_of_speech():
    assert SpeechLimits().min_test == MIN_SPEECH


def test_enrolment_requires_enough_total_speech_and_reports_disagreement():
    short = recording([1.0, 0.0], speech=0.8)
    assert VERIFIER.decide([short], GOOD).reasons[0].code == "too_little_enrolment_speech"
    assert VERIFIER.decide([short, short], GOOD).accepted
    assert VERIFIER.decide([], GOOD).outcome is Outcome.INCONCLUSIVE
    stranger = recording([0.0, 1.0], "stranger.wav")
    decision = VERIFIER.decide([GOOD, GOOD, GOOD, stranger], GOOD)
    warned = [reason for reason in decision.reasons if reason.code == "inconsistent_enrolment"]
    assert decision.accepted and ["stranger.wav" in reason.text for reason in warned] == [True]


@pytest.mark.parametrize("level, codes", [(-20.0, []), (None, []), (-55.0, ["quiet_recording"])])
def test_very_quiet_recordings_are_reported(level, codes):
    decision = VERIFIER.decide([GOOD], recording([1.0, 0.0], "test.wav", level=level))
    assert decision.accepted and [reason.code for reason in decision.reasons[1:]] == codes
    assert all("test.wav: very quiet (-55 dBFS)" in reason.text for reason in decision.reasons[1:])


@pytest.mark.parametrize("threshold", [np.nan, np.inf, -np.inf])
def test_nonfinite_threshold_is_refused(threshold):
    with pytest.raises(SasvError, match="accepts or rejects everything"):
        Verifier(threshold=threshold)
    with pytest.raises(SasvError, match="accepts or rejects everything"):
        Verifier.from_records({}, {"threshold": threshold})


def test_a_calibration_that_is_not_finite_is_refused():
    backend = calibration()
    backend.parts[0].offset = float("nan")
    with pytest.raises(SasvError, match="calibration is not finite"):
        Verifier(calibration=backend)
    huge = calibration()
    huge.parts[0].weights[0] = 1e308
    decision = Verifier(calibration=huge).decide([GOOD], recording([1.0, 1.0]))
    assert decision.outcome in (Outcome.INCONCLUSIVE, Outcome.ACCEPT)
    assert not np.isnan(list(decision.llrs.values())).any()


def test_calibrating_anew_replaces_threshold_and_source():
    backend = calibration()
    first = VERIFIER.calibrated(backend)
    assert first.threshold != 0.5 and "calibrated on dev" in first.threshold_source
    with_quality = replace(backend, columns=["score", "norm"], source="other")
    with_quality.parts = [replace(backend.parts[0], columns=["score", "norm"], weights=[5.0, 0.1])]
    second = first.calibrated(with_quality)
    assert second.threshold is None and "calibrated on other" in second.threshold_source


def test_records_round_trip_and_scores_made_otherwise_are_refused():
    verifier = replace(VERIFIER, scoring=Scoring("normalised", crops=10)).calibrated(calibration())
    again = Verifier.from_records(verifier.scoring.to_dict(), verifier.decision_record())
    assert again == verifier
    with pytest.raises(
        SasvError,
        match=r"b\.tsv: these scores were made with .*mean, whole .*normalised, 10 crops of 4 s",
    ):
        verifier.check_scoring(Scoring().to_dict(), "b.tsv")
    people = Cohort.build(np.eye(3), names=["a", "b", "c"], source="people.tsv")
    normalised = replace(VERIFIER, scoring=Scoring(cohort=people, top=2))
    record = normalised.scoring.to_dict()
    with pytest.raises(
        SasvError,
        match=r"m: its threshold is only valid for scores made with .*people\.tsv.*this cohort",
    ):
        Verifier.from_records(record, normalised.decision_record(), name="m")
    others = Cohort.build(np.eye(3), names=["x", "y", "z"], source="others.tsv")
    with pytest.raises(SasvError, match=r"people\.tsv.*others\.tsv"):
        Verifier.from_records(record, normalised.decision_record(), others, "m")
    assert Verifier.from_records(record, normalised.decision_record(), people).scoring.top == 2


@pytest.mark.parametrize(
    "decision",
    [
        {"threshold": "high"},
        {"calibration": {"kind": "x"}},
        {"speech": {"minimum": 3}},
        {"speech": {"min_test": None}},
    ],
)
def test_broken_records_are_reported(decision):
    with pytest.raises(SasvError, match="m: "):
        Verifier.from_records({}, decision, name="m")


def test_format_1_keeps_its_threshold():
    old = {"encoder": "ecapa-tdnn", "sizes": {}, "rate": 16000, "format": 1, "scoring": "cosine"}
    old |= {
        "direction": "higher",
        "threshold": 0.25,
        "threshold_source": "dev",
        "calibration": None,
    }
    specification = Specification.from_json(json.dumps(old), "old")
    verifier = Verifier.from_records(specification.scoring, specification.decision)
    assert (verifier.threshold, verifier.threshold_source, verifier.scoring) == (
        0.25,
        "dev",
        Scoring(),
    )
    again = Specification.from_json(specification.to_json(), "new")
    assert again == specification


@pytest.fixture(scope="module")
def speech_pair():
    """Two recordings of different people."""
    folder = shared("speech", "GLOBE")
    paths = sorted(folder.rglob("*.flac"))
    return [read_audio(path) for path in (paths[0], paths[300])]


@pytest.mark.slow
@pytest.mark.speech
@pytest.mark.parametrize("kind", ["silence", "noise"])
def test_silence_around_speech_does_not_change_the_verdict(speech_pair, kind):
    model = load_model(DEFAULT, "cpu")
    verifier = model.verifier()
    rng = np.random.default_rng(0)

    def padded(wave):
        if kind == "silence":
            return np.pad(wave, 30 * RATE)
        longer = np.pad(wave, (0, 60 * RATE))
        return (longer + 1e-3 * rng.standard_normal(len(longer))).astype(np.float32)

    plain = verifier.decide([model.recording(speech_pair[0])], model.recording(speech_pair[1]))
    found = [model.recording(padded(wave)) for wave in speech_pair]
    decision = verifier.decide(found[:1], found[1])
    assert plain.outcome.decision == decision.outcome.decision == "reject"
    assert decision.scores["sasv"] == pytest.approx(plain.scores["sasv"], abs=0.25)
    assert found[0].seconds < len(speech_pair[0]) / RATE + 1.1


@pytest.mark.parametrize("name", ["hiss0.wav", "hum0.wav", "click.wav"])
def test_verify_refuses_to_compare_noise(trained, tmp_path, capsys, name):
    """One line, exit status 2, and JSON without a score. An enrolment with a recording of noise is
    refused, too.
    """
    rng = np.random.default_rng(0)
    count = 3 * RATE
    wave = {
        "hiss0.wav": 3e-4 * rng.standard_normal(count),
        "hum0.wav": 0.01 * np.sin(2 * np.pi * 50 * np.arange(count) / RATE),
        "click.wav": (np.arange(count) == 9) * 1.0,
    }[name]
    paths = [str(tmp_path / f"{number}{name}") for number in range(2)]
    for path in paths:
        write_audio(path, wave.astype(np.float32))
    words = ["verify", *paths, "--model", str(trained / "model.safetensors"), "--device", "cpu"]
    assert main(words) == 2
    said = capsys.readouterr()
    assert (
        said.out == ""
        and said.err.count("\n") == 1
        and f"{paths[0]}: no speech was found in it" in said.err
    )
    assert main([*words, "--json"]) == 2
    result = json.loads(capsys.readouterr().out)
    assert result["decision"] == "inconclusive" and result["score"] is None
    assert [one["net_speech"] for one in result["recordings"]] == [0.0, 0.0]
    assert {reason["code"] for reason in result["reasons"]} == {"no_speech"}


def test_a_model_with_broken_weights_decides_nothing(
    trained, corpus, tmp_path, capsys, monkeypatch
):
    for value, name in ((np.nan, "nan"), (0.0, "zero")):
        checkpoint = load_checkpoint(trained / "model.safetensors")
        for entry in checkpoint.encoder.values():
            if entry.is_floating_point():
                entry.fill_(value)
        path = tmp_path / f"{name}.safetensors"
        with pytest.raises(CheckpointError, match="weights"):
            save_checkpoint(path, checkpoint)
        monkeypatch.setattr(
            store, "check_weights", lambda checkpoint: None
        )  # as an older version wrote it
        save_checkpoint(path, checkpoint)
        monkeypatch.undo()
        audio = [str(corpus / "audio" / f"s6-{number}.wav") for number in (0, 1)]
        assert main(["verify", *audio, "--model", str(path), "--min-speech", "0", "--json"]) == 2
        said = capsys.readouterr()
        assert "NaN" not in said.out and "accept" not in said.out
