"""Exported models: the command, the proof of equality, and the same scores and verdicts as those of
the checkpoint.
"""

import copy
import json

import numpy as np
import pytest

import sasv.export.export
from sasv.audio import read_audio
from sasv.checkpoints import load_checkpoint, save_checkpoint
from sasv.cli import main
from sasv.core.errors import CheckpointError
from sasv.decision import SpeechLimits
from sasv.embeddings.model import load_model
from sasv.export.graph import graph_of, named, to_onnx
from sasv.runtime import Verifier
from sasv.runtime.model import OnnxModel

pytest.importorskip("onnxscript", reason="onnxscript is not installed")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkpoint(trained, tmp_path_factory):
    """A trained model that decides without a minimum of speech, because buzzing is not speech."""
    found = load_checkpoint(trained / "model.safetensors")
    limits = vars(SpeechLimits(min_enrolment=0, min_test=0))
    found.specification.decision = {**(found.specification.decision or {}), "speech": limits}
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_checkpoint(path, found)
    return path


@pytest.fixture(scope="module")
def proto(checkpoint):
    """The graph that PyTorch exports, which takes ten seconds."""
    return to_onnx(graph_of(load_model(checkpoint, "cpu"), load_checkpoint(checkpoint)))


@pytest.fixture(scope="module")
def exported_once(proto):
    """Make each export of this module use the existing graph."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sasv.export.export, "to_onnx", lambda graph: copy.deepcopy(proto))
        yield


@pytest.fixture(scope="module")
def exported(exported_once, checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    assert main(["export", str(checkpoint), str(path)]) == 0
    return path


def test_scores_and_verdicts_are_those_of_the_toolkit(exported, checkpoint, corpus):
    own, model = OnnxModel(exported, threads=1), load_model(checkpoint, "cpu")
    assert own.fingerprint == model.fingerprint
    assert own.specification == model.specification
    limits = model.verifier().limits
    files = sorted((corpus / "audio").glob("s[67]-*.wav"))[::3]
    first = [model.recording(path, limits) for path in files]
    second = [own.recording(path, limits) for path in files]
    for index in range(1, len(files)):
        expected = model.verifier().decide(first[:1], first[index])
        found = own.verifier().decide(second[:1], second[index])
        assert found.scores["sasv"] == pytest.approx(expected.scores["sasv"], abs=1e-5)
        assert found.outcome == expected.outcome
        assert found.thresholds == expected.thresholds
    voiceprint = Verifier(own).enrol(files[:1])
    assert Verifier(own).verify(voiceprint, files[1]).scores == pytest.approx(
        model.verifier().decide(first[:1], first[1]).scores, abs=1e-5
    )
    waves = [read_audio(path, samples=16000 + 100 * row) for row, path in enumerate(files)]
    np.testing.assert_allclose(own.embed_many(waves), model.embed_many(waves), atol=1e-4)


def test_the_proof_is_shown_and_stored(exported_once, checkpoint, tmp_path, capsys):
    assert main(["export", str(checkpoint), str(tmp_path / "model.onnx")]) == 0
    proof = OnnxModel(tmp_path / "model.onnx").record.proof
    assert len(proof["seconds"]) == 5 and proof["distance"] < 1e-5 and proof["cosine"] > 0.99999
    shown = capsys.readouterr().out
    assert "opset 18" in shown and f"lowest cosine {proof['cosine']:.7f}" in shown


def test_an_export_that_differs_leaves_nothing(exported_once, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("sasv.export.proof.BOUND", 0.0)
    assert main(["export", str(checkpoint), str(tmp_path / "model.onnx")]) == 2
    assert not list(tmp_path.iterdir())


def test_int8_says_what_it_costs(exported_once, checkpoint, corpus, tmp_path, capsys):
    tables = [f"--utterances={corpus}/utterances.tsv", f"--trials={corpus}/trials_dev.tsv"]
    words = ["export", str(checkpoint), str(tmp_path / "int8.onnx"), "--int8"]
    assert main(words) == 2
    assert "give --utterances" in capsys.readouterr().err
    assert main([*words, *tables, f"--enrolments={corpus}/enrolments_dev.tsv"]) == 0
    assert "SV-EER" in capsys.readouterr().out
    own = OnnxModel(tmp_path / "int8.onnx")
    assert own.record.precision == "int8"
    assert own.fingerprint != load_model(checkpoint, "cpu").fingerprint


def test_verify_takes_an_exported_model(exported, checkpoint, corpus, capsys):
    files = [str(corpus / "audio" / f"s6-{number}.wav") for number in range(3)]
    printed = []
    for model in (exported, checkpoint):
        assert main(["verify", *files, "--model", str(model), "--json"]) == 0
        printed.append(json.loads(capsys.readouterr().out))
    assert printed[0]["score"] == pytest.approx(printed[1]["score"], abs=1e-5)
    assert printed[0]["outcome"] == printed[1]["outcome"]


def test_speed_by_threads(exported, capsys):
    words = ["benchmark-runtime", str(exported), "--threads=1", "--repeats=1", "--json"]
    assert main(words) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["threads"] == 1
    assert row["latency_ms"] > 0 and row["real_time_factor"] > 0 and row["start_ms"] > 0


def test_other_files_are_refused(exported, tmp_path, proto):
    with pytest.raises(CheckpointError, match="no such file"):
        OnnxModel(tmp_path / "missing.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(CheckpointError, match="cannot load it"):
        OnnxModel(tmp_path / "text.onnx")
    (tmp_path / "foreign.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(CheckpointError, match="not exported by sasv"):
        OnnxModel(tmp_path / "foreign.onnx")
    data = exported.read_bytes()
    (tmp_path / "broken.onnx").write_bytes(data.replace(b'"opset"', b'"opsat"'))
    with pytest.raises(CheckpointError, match="export the model again"):
        OnnxModel(tmp_path / "broken.onnx")


def test_a_value_inside_may_have_the_name_of_an_output():
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Neg", ["samples"], ["embedding"]),
        helper.make_node("Neg", ["embedding"], ["result"]),
    ]
    shapes = {"samples": ["a", "b"], "lengths": ["c"], "result": ["a", "b"]}
    value = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    ]
    model = helper.make_model(helper.make_graph(nodes, "toy", value[:2], value[2:]))
    graph = named(model).graph
    assert [list(node.output) for node in graph.node] == [["embedding_inside"], ["embedding"]]
