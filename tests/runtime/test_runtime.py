"""Enrolment, verification, identification, and streams with an exported model, here a toy model of
one layer.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from conftest import buzz
from sasv.audio import write_audio
from sasv.cli import main
from sasv.core.errors import AudioError, CheckpointError, SasvError, Undecided
from sasv.decision import Outcome, Recording, SpeechLimits
from sasv.models import Specification
from sasv.runtime import Verifier, Voiceprint
from sasv.runtime.embedder import Extraction
from sasv.runtime.model import OnnxModel
from sasv.runtime.record import Record
from sasv.runtime.windows import Windows, long_recording, together
from sasv.scores import SpoofHead, ThreeClass, TrialClasses
from toy import ANYTHING, RATE, toy_model

pytest.importorskip("onnx", reason="onnx is not installed")
PITCHES = {"ann": 110, "bob": 170, "eve": 260}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A model whose embedding is the magnitude of 24 bands, with a threshold in its record."""
    return toy_model(tmp_path_factory.mktemp("toy") / "toy.onnx")


@pytest.fixture(scope="module")
def verifier(path):
    found = Verifier(path, threads=1)
    for name, pitch in PITCHES.items():
        found.enrol([buzz(2 * RATE, pitch, seed) for seed in (1, 2)], name)
    return found


def test_verify_and_identify(verifier, tmp_path):
    speech = buzz(3 * RATE, PITCHES["bob"], 5)
    write_audio(tmp_path / "bob.wav", speech)
    for test in (speech, tmp_path / "bob.wav", str(tmp_path / "bob.wav")):
        assert verifier.verify(verifier.voiceprints["bob"], test).accepted
        assert verifier.verify(verifier.voiceprints["ann"], test).outcome is Outcome.REJECT
    found = verifier.identify(speech, top=2)
    assert [one.speaker for one in found][0] == "bob" and len(found) == 2
    assert found[0].decision == verifier.verify(verifier.voiceprints["bob"], speech)


def test_decision_equals_that_of_the_toolkit(verifier):
    speech = buzz(3 * RATE, 180, 5)
    model = verifier.embedder
    expected = model.verifier().decide(
        [
            model.recording(buzz(2 * RATE, 170, seed), ANYTHING, f"recording {seed}")
            for seed in (1, 2)
        ],
        model.recording(speech, ANYTHING),
    )
    assert verifier.verify(verifier.voiceprints["bob"], speech) == expected


def test_speech_is_measured_by_default(path):
    strict = Verifier(path, threads=1, limits=SpeechLimits())
    with pytest.raises(SasvError, match="no speech was found"):
        strict.enrol([buzz(2 * RATE)])
    voiceprint = Verifier(path, threads=1).enrol([buzz(2 * RATE)])
    decision = strict.verify(voiceprint, buzz(2 * RATE))
    assert decision.outcome is Outcome.INCONCLUSIVE and not decision.scores
    strict.voiceprints["x"] = voiceprint
    with pytest.raises(Undecided, match="no speech was found"):
        strict.identify(buzz(2 * RATE))


def test_voiceprints_are_kept(verifier, tmp_path):
    voiceprint = verifier.voiceprints["ann"]
    voiceprint.save(tmp_path / "ann.json")
    again = Voiceprint.load(tmp_path / "ann.json")
    speech = buzz(2 * RATE, 112)
    assert again.speaker == "ann" and again.net_speech == voiceprint.net_speech
    assert verifier.verify(again, speech) == verifier.verify(voiceprint, speech)
    with pytest.raises(SasvError, match="another model; enrol the speaker again"):
        verifier.verify(replace(again, model="other"), speech)
    with pytest.raises(SasvError, match="another model"):
        verifier.add(replace(again, model="other"))
    with pytest.raises(SasvError, match="needs the name"):
        verifier.add(replace(again, speaker=""))
    text = again.to_json()
    for broken in ("", "[]", "{}", text[:-9], text.replace('"seconds": ', '"seconds": "x')):
        (tmp_path / "broken.json").write_text(broken)
        with pytest.raises(SasvError, match="this is not a voiceprint"):
            Voiceprint.load(tmp_path / "broken.json")


def test_all_measurements_of_a_voiceprint_are_kept(verifier):
    """So a decision has the same reasons after a restart: here, that the enrolment was quiet."""
    measured = Recording(
        "a.wav", np.ones(24, np.float32), 2.0, 1.5, 0.75, -55.0, 20.0, 0.01, 7e3, 0.8
    )
    assert not any(value is None for value in vars(measured).values())
    voiceprint = Voiceprint((measured,), verifier.embedder.fingerprint)
    again = Voiceprint.from_json(voiceprint.to_json())
    (kept,) = again.recordings
    assert vars(replace(kept, vector=None)) == vars(replace(measured, vector=None))
    speech = buzz(2 * RATE, 112)
    decision = verifier.verify(again, speech)
    assert decision == verifier.verify(voiceprint, speech)
    assert "quiet_recording" in [reason.code for reason in decision.reasons]
    silent = Voiceprint((replace(measured, level=-np.inf),), "m")
    assert Voiceprint.from_json(silent.to_json()).recordings[0].level is None


@pytest.mark.parametrize("pieces", [160, 4000, 50000])
def test_a_stream_ends_with_the_verdict_on_the_whole(verifier, pieces):
    speech = buzz(5 * RATE, PITCHES["eve"], 7)
    stream = verifier.stream(verifier.voiceprints["eve"])
    assert stream.decision.outcome is Outcome.INCONCLUSIVE and not stream.settled
    for start in range(0, len(speech), pieces):
        stream.feed(speech[start : start + pieces])
    expected = verifier.verify(verifier.voiceprints["eve"], speech)
    assert stream.finish().scores == expected.scores
    assert stream.settled and stream.decision.accepted


def test_streams_accept_integer_samples_and_refuse_invalid_ones(verifier):
    speech = buzz(2 * RATE, PITCHES["eve"], 7)
    integers = np.round(speech * 32768).astype(np.int16)
    stream = verifier.stream(verifier.voiceprints["eve"])
    stream.feed(integers)
    expected = verifier.verify(verifier.voiceprints["eve"], integers / 32768).scores["sasv"]
    assert stream.finish().scores["sasv"] == pytest.approx(expected, abs=1e-6)
    for bad in (np.full(10, np.nan), np.zeros((10, 2))):
        with pytest.raises(AudioError, match="one channel of finite numbers"):
            stream.feed(bad)


def test_long_recordings_are_embedded_in_windows(verifier, tmp_path, monkeypatch):
    """Only one window of audio is in memory, and the score is close to that of the whole
    recording.
    """
    speech = buzz(7 * RATE, PITCHES["ann"], 3)
    write_audio(tmp_path / "long.wav", speech)
    found = long_recording(verifier.embedder, tmp_path / "long.wav", ANYTHING, seconds=2.0)
    whole = verifier.embedder.recording(tmp_path / "long.wav", ANYTHING)
    assert found.seconds == pytest.approx(7.0)
    cosine = verifier.decider.score([whole.vector], found.vector)
    assert cosine > 0.999
    assert np.linalg.norm(found.vector) == pytest.approx(np.linalg.norm(whole.vector), rel=0.02)
    monkeypatch.setattr(verifier.embedder, "extraction", Extraction(max_seconds=5.0))
    assert verifier.verify(verifier.voiceprints["ann"], tmp_path / "long.wav").accepted
    windows = Windows(verifier.embedder, ANYTHING, 2.0)
    windows.feed(speech)
    assert len(windows.pending) == RATE and len(windows.closed) == 3
    with pytest.raises(SasvError, match="shorter than the shortest"):
        Windows(verifier.embedder, ANYTHING, 0.01)


def test_windows_of_poor_quality_are_left_out_of_the_embedding(verifier):
    good = verifier.embedder.recording(buzz(2 * RATE, 110), ANYTHING)
    good = replace(good, net_speech=2.0, snr=30.0)
    bad = verifier.embedder.recording(buzz(2 * RATE, 260), ANYTHING)
    bad = replace(bad, net_speech=1.0, snr=-3.0)
    found = together([good, bad, good], SpeechLimits(), "both")
    np.testing.assert_allclose(found.vector, good.vector, rtol=1e-5)
    assert found.net_speech == 4.0
    worst = together([bad, bad], SpeechLimits(), "none")
    assert worst.vector is None and SpeechLimits().faults(worst)[0].code == "too_noisy"
    two = replace(SpeechLimits(), min_self_agreement=0.9)
    other = replace(bad, snr=30.0, net_speech=2.0)
    assert two.faults(together([good, other], two, "two"))[0].code == "more_than_one_speaker"


def test_no_torch_is_needed(path, tmp_path):
    """It runs in a process in which neither PyTorch nor Arrow can be imported."""
    code = f"""
import sys
for name in ("torch", "pyarrow", "scipy", "pydantic"):
    sys.modules[name] = None
import numpy as np
from sasv.runtime import Verifier
verifier = Verifier({str(path)!r}, threads=1)
wave = 0.1 * np.sin(np.arange(32000) / 20).astype(np.float32)
voiceprint = verifier.enrol([wave], "someone")
print(verifier.verify(voiceprint, wave).outcome, verifier.identify(wave)[0].speaker)
"""
    # ONNX Runtime keeps what it would send to its maker below the home folder.
    environment = {name: value for name, value in os.environ.items() if "XDG" not in name}
    environment |= {"HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.stdout == "accept someone\n", done.stderr
    assert not list(tmp_path.iterdir())


def test_a_graph_of_samples_is_embedded_in_batches(path):
    model = OnnxModel(path, threads=1)
    waves = [buzz(samples, 110) for samples in (RATE, 2 * RATE, 1700)]
    alone = np.concatenate([model.embed_many([wave]) for wave in waves])
    np.testing.assert_allclose(model.embed_many(waves), alone, rtol=1e-5)
    with pytest.raises(SasvError, match="without spoofed speech"):
        model.bona_fide_scores(waves)


@pytest.mark.slow
def test_the_commands_enrol_and_verify_with_a_store(path, tmp_path, capsys):
    """A voice that is already enrolled under another name is refused or reported, and the
    comparison is recorded.
    """
    pytest.importorskip("cryptography", reason="cryptography is not installed")
    for name, pitch in PITCHES.items():
        for seed in (1, 2):
            write_audio(tmp_path / f"{name}{seed}.wav", buzz(2 * RATE, pitch, seed))
    store, key = str(tmp_path / "store.db"), str(tmp_path / "key")
    assert main(["store", "new-key", key]) == 0
    assert main(["store", "create", store, "--key", key]) == 0
    capsys.readouterr()
    common = ["--model", str(path), "--key", key]

    def enrol(speaker, recording, *words):
        status = main(["enrol", store, speaker, str(tmp_path / recording), *common, *words])
        out, err = capsys.readouterr()
        return status, json.loads(out) if out else err

    status, first = enrol("ann", "ann1.wav", "--consent", "form 7", "--days", "30")
    assert status == 0 and first["duplicates"] == [] and first["consent"] == "form 7"
    assert first["expires"] - first["created"] == pytest.approx(30 * 86400, abs=60)
    assert enrol("ann", "ann2.wav", "--more")[1]["id"] == first["id"]
    assert enrol("bob", "bob1.wav")[0] == 0
    status, message = enrol("eve", "ann2.wav")
    assert status == 2 and "already enrolled as ann" in message
    status, twin = enrol("eve", "ann2.wav", "--duplicates", "report")
    assert status == 0 and [one["speaker"] for one in twin["duplicates"]] == ["ann"]
    assert (
        "no voiceprint to which recordings could be added" in enrol("joe", "eve1.wav", "--more")[1]
    )
    status, message = enrol("bob", "ann2.wav", "--more")
    assert status == 2 and "already enrolled as eve" in message
    assert "leave out --consent and" in enrol("bob", "bob2.wav", "--more", "--days", "3")[1]

    def verify(speaker, recording):
        words = ["--store", store, "--speaker", speaker, "--json"]
        main(["verify", str(tmp_path / recording), *common, *words])
        out, err = capsys.readouterr()
        return json.loads(out)["decision"] if out else err

    assert verify("bob", "bob2.wav") == "accept" and verify("bob", "ann1.wav") == "reject"
    assert "joe: not enrolled" in verify("joe", "bob1.wav")
    assert main(["verify", "a.wav", "--store", store]) == 2
    assert main(["store", "export", store, "--key", key, "--speaker", "bob"]) == 0
    held = json.loads(capsys.readouterr().out)
    actions = [entry["action"] for entry in held["audit"]]
    assert actions == ["add", "compare", "compare"]
    status, more = enrol("bob", "ann2.wav", "--more", "--duplicates", "report")
    assert status == 0 and {one["speaker"] for one in more["duplicates"]} == {"ann", "eve"}
    assert main(["enrol", store, "a\udce9", str(tmp_path / "bob1.wav"), *common]) == 2
    assert "characters that cannot be printed" in capsys.readouterr().err
    words = [str(tmp_path / "bob2.wav"), *common, "--more", "--duplicates", "report"]
    assert main(["enrol", store, "bob", *words]) == 0
    assert "ann2.wav: unlike the other enrolment recordings" in capsys.readouterr().err


def test_a_record_is_read_back(tmp_path):
    """Also what a model of the three-class loss decides by."""
    rng = np.random.default_rng(0)
    head = SpoofHead(rng.standard_normal(24).astype(np.float32), 0.5)
    weight, bias = rng.standard_normal((3, 2)), rng.standard_normal(3)
    classes = TrialClasses(weight.astype(np.float32), bias.astype(np.float32))
    record = Record(Specification("toy", {}), "f" * 64, 24, 18, "int8", ThreeClass(head, classes))
    found = Record.from_json(record.to_json(), "x.onnx")
    assert found.to_json() == record.to_json() and found.precision == "int8"
    np.testing.assert_array_equal(found.three_class.head.weight, head.weight)
    np.testing.assert_array_equal(found.three_class.classes.weight, classes.weight)
    newer = record.to_json().replace('"format": 1', '"format": 9', 1)
    with pytest.raises(CheckpointError, match="x.onnx: exported by a newer version"):
        Record.from_json(newer, "x.onnx")
    for broken in ("{", "[]", record.to_json().replace('"head"', '"tail"')):
        with pytest.raises(CheckpointError, match="export the model again"):
            Record.from_json(broken, "x.onnx")
    endless = replace(record, proof={"distance": float("inf")})
    with pytest.raises(SasvError, match="not finite"):
        endless.to_json()
