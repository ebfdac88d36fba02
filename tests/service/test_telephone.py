"""A voiceprint that was enrolled over the telephone gives the same decision over HTTP, from the
store, as in the same process.
"""

import io

import numpy as np
import pytest

import sasv.runtime.embedder
from conftest import buzz
from sasv.audio.codecs import transmit
from sasv.audio.speech import SpeechActivity
from sasv.calibration import ThreeWay
from sasv.calibration.backend import Linear
from sasv.calibration.narrow_band import NarrowBand
from sasv.decision import CalibratedHead
from sasv.metrics import COST_MODELS
from sasv.runtime.model import OnnxModel
from sasv.runtime.verifier import Verifier
from sasv.scores import SpoofHead
from serving import wav
from toy import RATE, toy_model


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A model whose LLR of the speaker is 3 with two narrow-band sides, and 2 with one; buzzing
    counts as speech.
    """
    pytest.importorskip("onnx", reason="onnx is not installed")

    def all_of_it(wave, rate=RATE):
        return SpeechActivity(len(wave) / rate, -10.0, ((0.0, len(wave) / rate),))

    monkeypatch.setattr(sasv.runtime.embedder, "net_speech", all_of_it)
    narrow = NarrowBand(5000.0, Linear(["score"], [1e-9], 2.0), Linear(["score"], [1e-9], 3.0))
    calibration = ThreeWay(
        speaker=Linear(["score"], [1.0], -5.0),
        spoof=Linear(["cm_score"], [1.0], 2.0),
        share=1.0,
        bound=5.0,
        ranges={},
        costs=COST_MODELS["asvspoof5"],
        narrow=narrow,
    )
    three_way = CalibratedHead(SpoofHead(np.full(24, 0.1)), calibration)
    limits = {"min_enrolment": 0, "min_test": 0, "min_snr": -99.0}
    path = tmp_path / "toy.onnx"
    return OnnxModel(toy_model(path, three_way=three_way.to_record(), speech=limits), 1)


def test_a_telephone_voiceprint_is_recognised_over_http(made, client_of, model):
    client = client_of(made(demo=True))
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
            for name in ("llr", "speaker_llr", "spoof_llr"):
                assert found[name] == pytest.approx(expected[name], abs=1e-5)
            sides = (speaker == "telephone") + (tested is telephone[1])
            if sides:
                assert found["speaker_llr"] == pytest.approx(1 + sides, abs=1e-5)


def rounded(wave):
    """Return a wave as it is sent."""
    import soundfile

    return soundfile.read(io.BytesIO(wav(wave)), dtype="float32")[0]
