"""A voiceprint that was enrolled over the telephone gives the same decision over HTTP, from a store
in a file or in PostgreSQL, as in the same process.
"""

import io

import numpy as np
import pytest

import postgres
import sasv.runtime.embedder
from conftest import buzz
from sasv.audio.codecs import transmit
from sasv.decision import CalibratedHead
from sasv.runtime.model import OnnxModel
from sasv.runtime.verifier import Verifier
from sasv.scores import SpoofHead
from serving import KEY, wav
from toy import RATE, all_speech, telephone_calibration, toy_model


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A model whose LLR of the speaker is 3 with two narrow-band sides, and 2 with one; buzzing
    counts as speech.
    """
    pytest.importorskip("onnx", reason="onnx is not installed")
    monkeypatch.setattr(sasv.runtime.embedder, "net_speech", all_speech)
    three_way = CalibratedHead(SpoofHead(np.full(24, 0.1)), telephone_calibration())
    limits = {"min_enrolment": 0, "min_test": 0, "min_snr": -99.0}
    path = tmp_path / "toy.onnx"
    return OnnxModel(toy_model(path, three_way=three_way.to_record(), speech=limits), 1)


@pytest.fixture(params=["sqlite", "postgresql"])
def service(request, made, model):
    """A service over a store in a file, and over one in PostgreSQL."""
    if request.param == "sqlite":
        yield made(demo=True)
        return
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    from sasv.service.app import make_service
    from sasv.service.settings import Settings
    from sasv.service.state import ServiceState
    from sasv.store import VoiceprintStore

    with postgres.running(postgres.binaries()) as server:
        store = VoiceprintStore(server.address, KEY)
        state = ServiceState(store.database)
        service = make_service(model, store, state, Settings(workers=1, rate=0, demo=True))
        yield service
        service.close()


def test_a_telephone_voiceprint_is_recognised_over_http(service, client_of, model):
    client = client_of(service)
    verifier = Verifier(model)
    rng = np.random.default_rng(0)
    wide = [0.5 * buzz(2 * RATE, 110, seed) for seed in range(2)]
    telephone = [transmit(wave, "8khz", rng) for wave in wide]
    for speaker, (enrolled, _) in (("wide", wide), ("telephone", telephone)):
        client.post("/v1/speakers", json={"id": speaker})
        answer = client.post(f"/v1/speakers/{speaker}/enrolments", content=wav(enrolled))
        assert answer.status_code == 201, answer.text
        voiceprint = verifier.enrol([rounded(enrolled)])
        for tested in (wide[1], telephone[1]):
            found = client.post(f"/v1/verify?speaker={speaker}", content=wav(tested)).json()
            expected = verifier.verify(voiceprint, rounded(tested)).to_dict()
            assert found["outcome"] == expected["outcome"]
            codes = [[one["code"] for one in given["reasons"]] for given in (found, expected)]
            assert codes[0] == codes[1]
            for name in ("score", "llr", "speaker_llr", "spoof_llr"):
                assert found[name] == pytest.approx(expected[name], abs=1e-5)
            sides = (speaker == "telephone") + (tested is telephone[1])
            if sides:
                assert found["speaker_llr"] == pytest.approx(1 + sides, abs=1e-5)
    # What a restarted server reads is the same as well.
    (stored,) = service.engine.store.of("telephone", "demo")
    (kept,) = stored.voiceprint.recordings
    assert kept.bandwidth == voiceprint.recordings[0].bandwidth < 5000


def rounded(wave):
    """Return a wave as it is sent."""
    import soundfile

    return soundfile.read(io.BytesIO(wav(wave)), dtype="float32")[0]
