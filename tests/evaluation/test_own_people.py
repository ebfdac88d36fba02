"""Calibration on the user's own people: which trials are drawn, what is left out of the fit, and
the uncertainty with few people.
"""

from dataclasses import replace

import numpy as np
import pytest

from conftest import built_encoder, buzz
from sasv.audio import write_audio
from sasv.calibration.backend import Linear
from sasv.calibration.narrow_band import MEDIUM_HZ, NARROW_HZ, NarrowBand
from sasv.checkpoints import Checkpoint, save_checkpoint
from sasv.cli import main
from sasv.commands import CalibrateOptions, calibrate
from sasv.core.errors import SasvError
from sasv.decision import CalibratedHead, Recording, SpeechLimits, Verifier
from sasv.embeddings.model import load_model
from sasv.evaluation import own_people
from sasv.evaluation.own_people import (
    ExpectedError,
    Fitting,
    Sample,
    columns_of,
    drawn,
    errors_of,
    expected_cost,
    expected_errors,
    recordings_of,
)
from sasv.metrics import cost_model
from sasv.models import Specification
from sasv.scores.spoofing import SpoofHead
from sasv.vocoders import Vocoder

RATE = 16000
ANYTHING = SpeechLimits(min_enrolment=0, min_test=0, min_bandwidth=0, min_level=-200)
COSTS = cost_model("asvspoof5")


def people_in_space(people=6, recordings=4, spread=0.3, axis=1.0, seed=0):
    """Return trials of embeddings around a direction for each person. Copies are shifted along a
    further axis.
    """
    rng = np.random.default_rng(seed)
    samples = []
    recorded = [[] for _ in range(people)]
    for person, centre in enumerate(rng.standard_normal((people, 16))):
        for _ in range(recordings):
            vector = np.append(centre + spread * rng.standard_normal(16), 0.1)
            row = len(samples)
            recorded[person].append(row)
            samples.append(Sample(person, Recording("a", vector, 4.0, 3.0), "", row))
            for name in ("x", "y"):
                copy = vector + rng.standard_normal(17) * 0.1
                copy[-1] -= axis * rng.uniform(0.8, 1.2) * np.linalg.norm(vector)
                samples.append(Sample(person, Recording("b", copy, 4.0, 3.0), name, row))
    return drawn([f"p{number}" for number in range(people)], samples, recorded)


def fitting(trials, three_way=True):
    weight = np.zeros(17)
    weight[-1] = 1.0
    head = SpoofHead(weight, 0.0) if three_way else None
    verifier = Verifier(threshold=0.5, limits=ANYTHING)
    return Fitting(trials, columns_of(trials, verifier, head), verifier, head, COSTS, "them")


def test_recordings_are_not_compared_with_themselves():
    trials = people_in_space(people=5, recordings=4)
    counts = np.bincount(trials.labels)
    assert counts.tolist() == [5 * 4, 5 * 4 * 3, 5 * 4 * 2]
    for trial, rows in enumerate(trials.members):
        sample = trials.samples[trials.tested[trial]]
        assert len(rows) == 3 and sample.source not in rows
        assert {trials.samples[row].person for row in rows} == {trials.claimed[trial]}
        assert not any(trials.samples[row].attack for row in rows)
        assert (sample.person == trials.claimed[trial]) == (trials.labels[trial] != 1)


@pytest.mark.parametrize("three_way", [True, False])
def test_errors_are_measured_on_held_out_people(monkeypatch, three_way):
    trials = people_in_space(people=7)
    fitted = Fitting.fitted
    seen = []

    def watched(self, rows):
        seen.append(set(trials.claimed[rows]) | set(trials.testers[rows]))
        return fitted(self, rows)

    monkeypatch.setattr(Fitting, "fitted", watched)
    decided = []

    def outcomes(self, verifier, rows, original=own_people.OwnTrials.outcomes):
        assert not set(self.claimed[rows]) & seen[-1]
        decided.extend(rows)
        return original(self, verifier, rows)

    monkeypatch.setattr(own_people.OwnTrials, "outcomes", outcomes)
    errors = expected_errors(fitting(trials, three_way))
    assert sorted(decided) == list(range(len(trials.tested))) and len(seen) == 3
    assert {name: error.people for name, error in errors.items()} == dict.fromkeys(errors, 7)
    assert all(error.low <= error.rate <= error.high for error in errors.values())
    assert errors["miss"].rate < 0.3 and errors["false_nontarget"].rate < 0.1
    if three_way:
        assert errors["false_spoof"].rate < 0.1 and expected_cost(errors, COSTS) < 0.3


@pytest.mark.parametrize("bandwidth", [7750.0, None, 3875.0])
def test_the_calibration_of_narrow_band_speech_is_kept_without_new_evidence(bandwidth):
    """It is kept if none of the people was recorded over a telephone. Copies do not count."""
    trials = people_in_space()
    samples = [
        one._replace(
            recording=replace(one.recording, bandwidth=3875.0 if one.attack else bandwidth)
        )
        for one in trials.samples
    ]
    wide = fitting(replace(trials, samples=samples))
    rows = np.arange(len(trials.labels))
    fitted = wide.parts(rows)[1]
    assert fitted is not None and fitted.narrow is None
    both = Linear(["score"], [8.0], -3.0)
    narrow = NarrowBand(NARROW_HZ, None, both, MEDIUM_HZ)
    before = Verifier(
        three_way=CalibratedHead(wide.head, replace(fitted, narrow=narrow)), limits=ANYTHING
    )
    again = replace(wide, verifier=before).parts(rows)[1]
    assert again == (fitted if bandwidth == 3875.0 else replace(fitted, narrow=narrow))


def test_confidence_interval_depends_on_the_number_of_people():
    """With no error among n people, the rate may still be about 4/n. More trials do not change
    this.
    """
    for count in (4, 30, 300):
        for each in (1, 50):
            people = np.repeat(np.arange(count), each)
            error = ExpectedError.of(np.zeros(len(people), bool), people)
            assert error.rate == error.low == 0
            assert error.high == pytest.approx(1.96**2 / (count + 1.96**2))
    half = ExpectedError.of(np.arange(100) % 2 == 0, np.arange(100))
    assert (half.low, half.high) == pytest.approx((0.404, 0.596), abs=0.001)
    every = ExpectedError.of(np.ones(4, bool), np.arange(4))
    assert every.rate == every.high == 1 and every.low < 0.6


def test_outcomes_other_than_accept_count_as_misses():
    trials = people_in_space()
    nobody = replace(Verifier(threshold=-1.0), limits=replace(ANYTHING, min_test=60.0))
    outcomes = trials.outcomes(nobody, np.arange(len(trials.tested)))
    rates = {name: error.rate for name, error in errors_of(trials, outcomes).items()}
    assert rates == {"miss": 1.0, "false_nontarget": 0.0, "false_spoof": 0.0}


class Quieter(Vocoder):
    """A vocoder whose copies are only shortened."""

    def resynthesise(self, wave, seed):
        return np.clip(wave, -0.1, 0.1)


@pytest.fixture(scope="module")
def voices(tmp_path_factory):
    """Five people with three recordings each, one of which is silent."""
    folder = tmp_path_factory.mktemp("voices")
    for number in range(5):
        for seed in range(3):
            wave = buzz(RATE, 100 + 40 * number, 10 * number + seed)
            write_audio(folder / f"p{number}" / f"{seed}.wav", wave)
    write_audio(folder / "p2" / "silent.flac", np.zeros(RATE, np.float32))
    return folder


@pytest.mark.slow
def test_the_command_writes_a_calibrated_checkpoint(voices, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(own_people, "available", lambda names: {"quieter": Quieter()})
    encoder = built_encoder("ecapa-tdnn")
    decision = {"threshold": 0.5, "threshold_source": "a guess", "speech": vars(ANYTHING)}
    specification = Specification(**encoder.description(), decision=decision)
    checkpoint = Checkpoint(specification, encoder.state_dict())
    model, result = tmp_path / "model.safetensors", tmp_path / "mine.safetensors"
    save_checkpoint(model, checkpoint)
    words = ["--enrolled", str(voices), "--model", str(model), "--model-out", str(result)]
    assert main(["calibrate", *words]) == 0
    said = capsys.readouterr().err
    assert "left out" in said and "silent.flac" in said
    assert "15 trials of the person, 60 of another person, 15 of a copy" in said
    assert "5 people are too few" in said and "may still be 60 %" in said
    verifier = load_model(result).verifier()
    assert verifier.calibration is not None
    assert "5 people in" in verifier.threshold_source
    assert verifier.limits == ANYTHING and verifier.scoring.max_pause == ANYTHING.max_pause


def test_unusable_folders_are_refused(voices, tmp_path, monkeypatch):
    write_audio(tmp_path / "ann" / "1.wav", buzz(RATE))
    write_audio(tmp_path / "bob" / "1.wav", buzz(RATE))
    write_audio(tmp_path / "bob" / "2.wav", buzz(RATE))
    with pytest.raises(SasvError, match="fewer than two recordings of ann, one to enrol"):
        recordings_of(tmp_path)
    write_audio(tmp_path / "ann" / "2.wav", buzz(RATE))
    with pytest.raises(SasvError, match="2 people, but at least 4 are needed"):
        recordings_of(tmp_path)
    with pytest.raises(SasvError, match="no such folder"):
        recordings_of(tmp_path / "none")
    monkeypatch.setattr(own_people, "MOST_RECORDINGS", 2)
    assert [len(paths) for paths in recordings_of(voices).values()] == [2] * 5
    with pytest.raises(SasvError, match="only be combined with --model, --model-out, and --costs"):
        calibrate(CalibrateOptions(enrolled=str(voices), scores="scores.tsv"))
    with pytest.raises(SasvError, match="calibrate the checkpoint, and export it again"):
        calibrate(CalibrateOptions(enrolled=str(voices), model="model.onnx"))
    with pytest.raises(SasvError, match="needs a score file, or --enrolled"):
        calibrate(CalibrateOptions())
