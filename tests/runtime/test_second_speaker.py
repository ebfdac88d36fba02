"""Two people one after the other in one recording: inconclusive, however it arrives."""

from dataclasses import replace

import numpy as np
import pytest

from conftest import buzz
from sasv.audio import write_audio
from sasv.core.errors import SasvError, Undecided
from sasv.decision import Outcome, Recording, SpeechLimits
from sasv.runtime import Verifier, embedder
from sasv.runtime.embedder import Extraction, self_agreement
from sasv.runtime.windows import together
from serving import enrol, wav
from toy import ANYTHING, RATE, all_speech, toy_model

CHECKED = replace(ANYTHING, min_snr=-99.0, min_self_agreement=0.9, min_narrow_self_agreement=0.9)
SEVERAL = "more_than_one_speaker"


def of_two(ann, eve, seed=5):
    """Return ``ann`` seconds of one voice and ``eve`` seconds of another."""
    return np.concatenate([buzz(ann * RATE, 110, seed), buzz(eve * RATE, 260, seed)])


@pytest.fixture
def verifier(tmp_path, monkeypatch):
    """A verifier that looks for a second speaker, and knows "ann"."""
    pytest.importorskip("onnx", reason="onnx is not installed")
    monkeypatch.setattr(embedder, "net_speech", all_speech)
    path = toy_model(tmp_path / "toy.onnx", threshold=0.5, speech=vars(CHECKED))
    found = Verifier(path, threads=1)
    found.enrol([buzz(2 * RATE, 110, seed) for seed in (1, 2)], "ann")
    return found


def test_the_agreement_is_that_of_the_least_similar_two_parts():
    windows = np.random.default_rng(0).standard_normal((6, 5))
    unit = windows / np.linalg.norm(windows, axis=1, keepdims=True)
    cosines = unit @ unit.T
    expected = min(cosines[:split, split:].mean() for split in range(1, 6))
    assert self_agreement(windows) == pytest.approx(expected)
    assert self_agreement(np.ones((2, 3))) == pytest.approx(1.0)
    one, other = np.eye(2)
    for before in range(1, 9):  # whatever the shares, and however often somebody is heard
        assert self_agreement(np.stack([one] * before + [other])) == pytest.approx(0.0)


@pytest.mark.parametrize("shares", [(7, 3), (2, 4)])
def test_two_people_in_one_recording_are_inconclusive(verifier, shares, tmp_path):
    ann = verifier.voiceprints["ann"]
    assert verifier.verify(ann, buzz(10 * RATE, 110, 5)).outcome is Outcome.ACCEPT
    two = of_two(*shares)
    unchecked = replace(ANYTHING, min_snr=-99.0)
    assert Verifier(verifier.embedder, limits=unchecked).verify(ann, two).scores["sasv"] > 0.5
    write_audio(tmp_path / "two.wav", two)
    stream = verifier.stream(ann)
    for start in range(0, len(two), RATE // 2):
        stream.feed(two[start : start + RATE // 2])
    for decision in (
        verifier.verify(ann, two),
        verifier.verify(ann, tmp_path / "two.wav"),
        stream.finish(),
    ):
        assert decision.outcome is Outcome.INCONCLUSIVE and not decision.scores
        assert [reason.code for reason in decision.reasons] == [SEVERAL]
    with pytest.raises(Undecided, match="more than one speaker"):
        verifier.identify(two)
    with pytest.raises(SasvError, match="more than one speaker"):
        verifier.enrol([two], "two")


def test_recordings_too_short_for_two_windows_are_not_checked(verifier):
    short = verifier.recording(of_two(2, 1))
    assert short.vector is not None and short.agreement is None


def test_a_change_within_a_window_of_a_long_recording_is_not_forgotten(
    verifier, tmp_path, monkeypatch
):
    """A window with two people is left out of the embedding, but not because of its quality."""
    write_audio(tmp_path / "long.wav", np.concatenate([buzz(20 * RATE, 110, 3), of_two(8, 4)]))
    monkeypatch.setattr(verifier.embedder, "extraction", Extraction(max_seconds=30.0))
    decision = verifier.verify(verifier.voiceprints["ann"], tmp_path / "long.wav")
    assert [reason.code for reason in decision.reasons] == [SEVERAL]
    part = Recording("part", np.ones(3), 20.0, 20.0, agreement=0.99)
    parts = [part, replace(part, agreement=0.1)]
    assert together(parts, CHECKED, "whole").agreement == pytest.approx(0.1)


def test_narrow_band_speech_has_a_limit_of_its_own():
    limits = SpeechLimits(min_self_agreement=0.4, min_narrow_self_agreement=0.5)
    recording = Recording("it", np.ones(3), 9.0, 9.0, agreement=0.45)
    for bandwidth, expected in ((None, []), (8000.0, []), (3400.0, [SEVERAL])):
        faults = limits.faults(replace(recording, bandwidth=bandwidth))
        assert [reason.code for reason in faults] == expected
    shared = SpeechLimits(min_self_agreement=0.4)
    assert not shared.faults(replace(recording, bandwidth=3400.0))
    with pytest.raises(SasvError, match="needs min_self_agreement"):
        SpeechLimits(min_narrow_self_agreement=0.5)


@pytest.fixture
def model(verifier):
    """The model of the service (see tests/serving.py)."""
    return verifier.embedder


def test_the_service_answers_that_two_people_speak(made, client_of):
    client = client_of(made(demo=True))
    enrol(client, "ann", 1)
    two = of_two(4, 3)
    for answer in (
        client.post("/v1/verify?speaker=ann", content=wav(two)),
        client.post("/v1/identify", content=wav(two)),
    ):
        assert answer.json()["outcome"] == "inconclusive"
        assert [reason["code"] for reason in answer.json()["reasons"]] == [SEVERAL]
    refused = client.post("/v1/speakers/ann/enrolments", content=wav(two))
    assert refused.status_code == 422
    assert [reason["code"] for reason in refused.json()["reasons"]] == [SEVERAL]
    with client.websocket_connect("ws://127.0.0.1/v1/stream") as stream:
        stream.send_json({"type": "start", "speaker": "ann", "every": 7})
        assert stream.receive_json()["type"] == "ready"
        stream.send_bytes(np.round(32768 * two).astype("<i2").tobytes())
        stream.send_json({"type": "end"})
        answer = {"final": False}
        while not answer["final"]:
            answer = stream.receive_json()
    assert answer["outcome"] == "inconclusive" and answer["reasons"][0]["code"] == SEVERAL
