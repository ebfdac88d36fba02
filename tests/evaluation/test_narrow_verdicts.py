"""A model that is calibrated for narrow-band speech: a table, a verifier, and a saved voiceprint
give the same verdicts.
"""

import numpy as np
import pytest
import torch

import sasv.runtime.embedder
from conftest import buzz, preset
from sasv.audio import write_audio
from sasv.audio.codecs import transmit
from sasv.checkpoints import Checkpoint, save_checkpoint
from sasv.commands import EvaluateOptions, evaluate
from sasv.decision import ANY_SPEECH, CalibratedHead, Verifier
from sasv.embeddings.model import load_model
from sasv.encoders import make_encoder
from sasv.models import Specification
from sasv.runtime.verifier import Verifier as Runtime
from sasv.runtime.verifier import Voiceprint
from sasv.scores import SpoofHead
from sasv.tables import Scores, Table
from toy import all_speech, telephone_calibration

MEMBERS = {"w": ["a0", "a1"], "n": ["b0~p", "b1~p"]}
TESTED = ("a2", "a2~p", "b2", "b2~p")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A checkpoint of an encoder with an inner axis, and a calibration for the telephone."""
    torch.manual_seed(0)
    options = preset("campplus", "test") | {"spoof_axis": True, "inner_axis": True}
    encoder = make_encoder("campplus", options).eval()
    last = torch.zeros(encoder.dimension)
    last[-1] = -1.0
    head = {"spoof_head.weight": last, "spoof_head.bias": torch.zeros(())}
    three_way = CalibratedHead(SpoofHead(last.numpy()), telephone_calibration(spoof_axis=True))
    specification = Specification(**encoder.description())
    specification.decision = Verifier(three_way=three_way, limits=ANY_SPEECH).decision_record()
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_checkpoint(path, Checkpoint(specification, encoder.state_dict(), head))
    return path


@pytest.fixture
def protocol(tmp_path, monkeypatch):
    """Two buzzing "speakers", one of whom is enrolled by telephone; buzzing counts as speech."""
    monkeypatch.setattr(sasv.runtime.embedder, "net_speech", all_speech)
    (tmp_path / "audio").mkdir()
    rng = np.random.default_rng(0)
    lines = ["utterance\tpath\tspeaker\tlabel"]
    for speaker, pitch in (("a", 110.0), ("b", 190.0)):
        for number in range(3):
            wave = 0.5 * buzz(16000, pitch, number)
            phone = transmit(wave, "8khz", rng)
            for name, samples in ((f"{speaker}{number}", wave), (f"{speaker}{number}~p", phone)):
                write_audio(tmp_path / "audio" / f"{name}.wav", samples)
                lines.append(f"{name}\taudio/{name}.wav\t{speaker}\tbonafide")
    (tmp_path / "utterances.tsv").write_text("\n".join(lines) + "\n")
    enrolments = "".join(f"{one}\t{','.join(names)}\n" for one, names in MEMBERS.items())
    (tmp_path / "enrolments.tsv").write_text(f"speaker\tutterances\n{enrolments}")
    trials = "".join(f"{one}\t{test}\ttarget\n" for one in MEMBERS for test in TESTED[:2])
    trials += "".join(f"{one}\t{test}\tnontarget\n" for one in MEMBERS for test in TESTED[2:])
    (tmp_path / "trials.tsv").write_text(f"speaker\tutterance\tlabel\n{trials}")
    return tmp_path


@pytest.mark.slow
def test_table_verifier_and_voiceprint_agree(model, protocol):
    names = ("utterances", "enrolments", "trials")
    paths = {name: str(protocol / f"{name}.tsv") for name in names}
    out = protocol / "out"
    evaluate(
        EvaluateOptions(
            **paths,
            out=str(out),
            model=str(model),
            quality=True,
            intervals=0,
            plot=False,
            device="cpu",
        )
    )
    scores = Scores(Table.load(out / "scores.tsv"))
    llrs = scores.numbers("speaker_llr")
    narrow = scores.numbers("bandwidth") < 5000
    assert narrow.tolist() == [name.endswith("~p") for name in scores.table.texts("utterance")]
    loaded = load_model(model, "cpu")
    runtime = Runtime(loaded)
    files = {path.stem: str(path) for path in sorted((protocol / "audio").iterdir())}
    known = {
        name: loaded.recording(files[name], ANY_SPEECH)
        for name in (*MEMBERS["w"], *MEMBERS["n"], *TESTED)
    }
    voiceprints = {
        speaker: Voiceprint.from_json(runtime.enrol([files[name] for name in names]).to_json())
        for speaker, names in MEMBERS.items()
    }
    kinds = set()
    for row, (speaker, test) in enumerate(
        zip(scores.table.texts("speaker"), scores.table.texts("utterance"))
    ):
        decision = runtime.decider.decide([known[name] for name in MEMBERS[speaker]], known[test])
        assert decision.llrs["speaker"] == pytest.approx(llrs[row], abs=1e-5)
        assert decision.outcome == scores.table.texts("outcome")[row]
        if row % 2:  # the recordings over the telephone
            found = runtime.verify(voiceprints[speaker], files[test])
            assert found.llrs == pytest.approx(decision.llrs, abs=1e-5)
        sides = (speaker == "n") + test.endswith("~p")
        if sides:
            assert decision.llrs["speaker"] == pytest.approx(1 + sides, abs=1e-5)
        else:
            assert decision.llrs["speaker"] < -3
        kinds.add(sides)
    assert kinds == {0, 1, 2}
    measured = Table.load(out / "bandwidth.tsv")
    assert sorted(measured.texts("utterance"))[0] == "a0"
    assert (measured.numbers("bandwidth") > 3000).all()
