"""Stress tests of systems: the same report after an interruption and in shards, the same decisions
as sasv verify, and messages about unsuitable systems or speech.
"""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from conftest import buzz
from sasv import cli
from sasv.audio import write_audio
from sasv.commands import StressOptions, stress
from sasv.core.errors import SasvError
from sasv.embeddings.model import load_model
from sasv.metrics.curve import SPOOF
from sasv.stress.conditions import CLEAN, CONDITIONS, Surroundings, apply_condition
from sasv.stress.copies import vocoders_here
from sasv.stress.measure import Claims, widened
from sasv.stress.pages import summary
from sasv.stress.speech import Sizes, find_speech
from sasv.stress.systems import load_function
from sasv.tables import load_scores

SYSTEMS = """
import numpy as np

calls = []
limit = [None]

def spectrum(wave):
    calls.append(1)
    if limit[0] is not None and len(calls) > limit[0]:
        raise KeyboardInterrupt
    found = np.abs(np.fft.rfft(wave, 4096))[:1024].reshape(64, 16).mean(1)
    found = np.log(found + 1e-3)
    return found - found.mean()

def cosine(enrolled, tested):
    one, other = spectrum(enrolled), spectrum(tested)
    return one @ other / np.linalg.norm(one) / np.linalg.norm(other)

def broken(wave):
    return np.array([1.0, np.nan])

def growing(wave):
    calls.append(1)
    return np.ones(2 + len(calls))

def failing(wave):
    raise ValueError("no such layer")

def matrix(wave):
    return np.ones((3, 4))

def three(first, second, third):
    return 0.0

value = 3
"""
SMALL = {
    "conditions": ["white-10", "speech-1.5"],
    "vocoders": ["source-filter"],
    "min_speech": 0.0,  # the voices of these tests are no speech
    "intervals": 20,
    "listen": 1,
}

pytestmark = pytest.mark.usefixtures("small_runs")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with a module of systems that no other test has imported."""
    (tmp_path / "tried.py").write_text(SYSTEMS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("tried", None)


def options(corpus, out, **changes):
    return StressOptions(speech=str(corpus / "utterances.tsv"), out=str(out), **(SMALL | changes))


def pages(out):
    return {name: (out / f"report.{name}").read_bytes() for name in ("html", "md", "json", "tsv")}


@pytest.mark.slow
def test_report_is_the_same_after_an_interruption_and_in_shards(corpus, place):
    wanted = {"system": "tried:spectrum", "against": ["tried:cosine"]}
    wanted |= {"speakers": 5, "recordings": 1, "impostors": 2}
    test = stress(options(corpus, place / "whole", **wanted))
    module = sys.modules["tried"]
    whole = len(module.calls)
    module.calls.clear()
    module.limit[0] = 25
    with pytest.raises(KeyboardInterrupt):
        stress(options(corpus, place / "killed", **wanted))
    module.limit[0] = None
    before = len(module.calls)
    stress(options(corpus, place / "killed", **wanted))
    assert len(module.calls) - before < whole - 15
    assert stress(options(corpus, place / "shards", shard="1/2", **wanted)) is None
    assert stress(options(corpus, place / "shards", shard="2/2", **wanted)) is not None
    assert pages(place / "whole") == pages(place / "killed") == pages(place / "shards")
    check_report(test, place / "whole")


def check_report(test, out):
    """Compare a report with the numbers from which it was made."""
    text = summary(test)
    assert "weakest points" in text and "against tried:spectrum" in text and str(out) in text
    report = json.loads((out / "report.json").read_text())
    rates = [point["rate"] for point in report["weakest"] if point["interval"]]
    assert rates == sorted(rates, reverse=True)
    assert report["claims"]["target"] == 5 and report["speakers"] == 5
    assert report["attacks"]["source-filter"] == 5
    assert list(report["conditions"]) == [CLEAN, "white-10", "speech-1.5"]
    assert not report["systems"]["tried:spectrum"]["threshold"]["own"]
    against = report["systems"]["tried:cosine"]["conditions"]["white-10"]["against"]
    assert 0 < against["tried:spectrum"]["sv_eer"]["p"] <= 1
    for paths in report["listen"].values():
        assert paths and all((out / path).is_file() for path in paths)
    assert b'src="listen/white-10/' in (out / "report.html").read_bytes()
    scores = load_scores(out / "systems" / "tried-spectrum" / "scores.tsv")
    scores.check_unique()
    first = test.results[0]
    rows = np.array([text == "white-10" for text in scores.table.texts("condition")])
    spoofs = rows & (scores.labels == SPOOF) & (np.array(scores.attack_texts) == "source-filter")
    accepted = np.array(scores.table.texts("outcome"))[spoofs] == "accept"
    found = first.measured["white-10"].values["accepted.source-filter"]
    assert found == pytest.approx(100 * accepted.mean())


def test_function_of_two_recordings_scores_as_the_cosine_of_one(corpus, place):
    speech = find_speech(str(corpus / "utterances.tsv"), "", "", "", Sizes(min_speech=0.0))
    single = place / "enrolments.tsv"
    rows = [f"{name}\t{names[0]}\n" for name, names in speech.enrolments.items()]
    single.write_text("speaker\tutterances\n" + "".join(rows))
    wanted = {"enrolments": str(single), "vocoders": ["none"], "against": ["tried:cosine"]}
    wanted |= {"conditions": ["white-10"], "recordings": 1, "impostors": 2}
    test = stress(options(corpus, place / "out", system="tried:spectrum", **wanted))
    one, other = (result.heard["white-10"].numbers for result in test.results)
    assert np.allclose(one, other, atol=1e-6)


@pytest.mark.slow
def test_model_decides_as_sasv_verify_does(corpus, trained, place):
    path = str(trained / "model.safetensors")
    wanted = {"system": path, "threshold": 0.3, "vocoders": ["none"], "intervals": 0}
    wanted |= {"conditions": ["quiet-30"], "recordings": 1, "impostors": 1, "speakers": 4}
    test = stress(options(corpus, place / "out", **wanted))
    assert test.results[0].threshold.own
    model = load_model(path, "cpu")
    verifier = model.verifier().with_threshold(0.3)
    table = test.speech.utterances
    for row in (0, 1, 2, 3, len(test.claims.rows) - 1):
        claim = test.claims.rows[row]
        wanted = [*test.speech.enrolments[claim.speaker], claim.recording]
        recordings = [
            model.recording(table.path(table.rows[name]), verifier.limits) for name in wanted
        ]
        decision = verifier.decide(recordings[:-1], recordings[-1])
        assert test.results[0].heard[CLEAN].outcomes[row] is decision.outcome


@pytest.mark.parametrize(
    ("system", "message"),
    [
        ("nowhere:embed", "there is no module nowhere"),
        ("tried:missing", "has no missing"),
        ("tried:value", "of type int, not a function"),
        ("tried:three", "without a default are: first, second, third"),
        ("tried:broken", "not finite"),
        ("tried:growing", "all vectors must have the same size"),
        ("tried:failing", "no such layer"),
        ("tried:matrix", "must return a vector"),
        ("nowhere.onnx", "no such file"),
    ],
)
def test_wrong_system_is_reported_in_one_line(corpus, place, capsys, system, message):
    (place / "empty").mkdir()
    words = ["stress", str(corpus / "utterances.tsv"), "--system", system, "--vocoders", "none"]
    assert cli.main([*words, "--min-speech", "0", "--conditions", "white-10"]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in last and "Traceback" not in last


def test_too_little_speech_is_reported(tmp_path):
    voice = buzz(16000)
    for speaker in ("anna", "ben"):
        for number in range(2):
            write_audio(tmp_path / "one" / speaker / f"{number}.wav", 0 * voice)
    for number in range(4):
        write_audio(tmp_path / "two" / "anna" / f"{number}.wav", voice)
    with pytest.raises(SasvError, match=r"0 speakers .*silent"):
        find_speech(str(tmp_path / "one"), "", "", "", Sizes())
    with pytest.raises(SasvError, match=r"1 speaker with .*at least two are needed"):
        find_speech(str(tmp_path / "two"), "", "", "", Sizes(min_speech=0.0))
    with pytest.raises(SasvError, match=r"0.75 s of speech"):
        find_speech(str(tmp_path / "two"), "", "", "", Sizes())


def test_unusable_speech_is_reported(corpus, tmp_path):
    table, trials = str(corpus / "utterances.tsv"), str(corpus / "trials_dev.tsv")
    write_audio(tmp_path / "anna" / "1.wav", buzz(16000))
    other = tmp_path / "enrolments.tsv"
    other.write_text("speaker\tutterances\ns6\tnobody\n")
    wrong = [
        ((str(tmp_path), "split=dev", "", ""), "--where selects rows of a table"),
        ((table, "split=none", "", ""), "no row has split=none"),
        ((table, "", "", trials), "--trials needs --enrolments"),
        ((table, "", str(other), ""), "nobody is missing in"),
    ]
    for given, message in wrong:
        with pytest.raises(SasvError, match=message):
            find_speech(*given, Sizes())


def test_vocoders_are_those_that_can_be_used(caplog):
    caplog.set_level("INFO", "sasv")
    found = vocoders_here([], {})
    assert "griffin-lim" in found and "hifi-gan" not in found
    assert "--weights.hifi-gan PATH" in caplog.text
    with pytest.raises(SasvError, match="a codec, not a vocoder"):
        vocoders_here(["8khz"], {})
    with pytest.raises(SasvError, match="not a vocoder of this test"):
        vocoders_here(["griffin-lim"], {"hifi-gan": "w.pt"})
    with pytest.raises(SasvError, match="no such file"):
        vocoders_here(["hifi-gan"], {"hifi-gan": "w.pt"})


def test_few_speakers_have_no_intervals(corpus, place, capsys):
    wanted = {"system": "tried:spectrum", "speakers": 3, "vocoders": ["none"]}
    test = stress(options(corpus, place / "out", **wanted))
    assert not test.results[0].measured[CLEAN].intervals
    assert "fewer than 5 speakers" in capsys.readouterr().err
    assert "The rates are not reliable" in (place / "out" / "report.md").read_text()


def test_given_trials_are_used_as_they_are(corpus):
    tables = (str(corpus / name) for name in ("enrolments_dev.tsv", "trials_dev.tsv"))
    speech = find_speech(str(corpus / "utterances.tsv"), "", *tables, Sizes())
    claims = Claims(speech.claims)
    assert np.bincount(claims.labels).tolist() == [8, 8, 8]
    assert claims.kinds == {"others": 8, "noise": 8}


@pytest.mark.parametrize("name", CONDITIONS)
def test_condition(name, tmp_path, voice):
    wave = voice(24000)
    for kind in ("noise", "room"):
        write_audio(tmp_path / f"{kind}.wav", 0.1 * voice(8000, 1))
    around = Surroundings(*([str(tmp_path / f"{kind}.wav")] for kind in ("noise", "room", "noise")))
    heard = apply_condition(name, wave, 0, "one", around)
    assert heard.dtype == np.float32 and np.isfinite(heard).all() and np.abs(heard).max() <= 1
    assert np.array_equal(heard, apply_condition(name, wave, 0, "one", around))
    assert len(heard) == len(wave) or name.startswith("speech-")
    assert (name == CLEAN) == np.array_equal(heard, wave) or name.startswith("speech-")
    if name.startswith(("white", "babble", "noise")):
        snr = 10 * np.log10(np.square(wave).sum() / np.square(heard - wave).sum())
        assert snr == pytest.approx(float(name.partition("-")[2]), abs=0.1)
        other = apply_condition(name, wave, 0, "two", around)
        assert not name.startswith("white") or not np.array_equal(heard, other)


def test_interval_of_a_rate_of_zero_is_not_empty():
    assert widened(0.0, (0.0, 0.0), 20) == (0.0, pytest.approx(16.84, abs=0.01))
    assert widened(100.0, (100.0, 100.0), 20)[0] == pytest.approx(83.16, abs=0.01)
    assert widened(10.0, (5.0, 20.0), 20) == (5.0, 20.0)
    assert widened(0.0, (0.0, 0.0), 4) is None


def test_functions_of_one_and_of_two_recordings_are_told_apart(place):
    assert not load_function("tried:spectrum").compares
    assert load_function("tried:cosine").compares
    assert dataclasses.fields(StressOptions)[0].name == "speech"
    assert Path("tried.py").exists()
