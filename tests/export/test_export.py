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
from sasv.core.errors import CheckpointError, SasvError
from sasv.core.onnx import new_session
from sasv.decision import SpeechLimits
from sasv.embeddings.model import load_model
from sasv.export import quantise
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


def test_scores_and_verdicts_equal_those_of_the_toolkit(exported, checkpoint, corpus):
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


def test_comparison_with_pytorch_is_shown_and_stored(exported_once, checkpoint, tmp_path, capsys):
    for _ in range(2):  # the second one replaces the first
        assert main(["export", str(checkpoint), str(tmp_path / "model.onnx")]) == 0
    proof = OnnxModel(tmp_path / "model.onnx").record.proof
    assert len(proof["seconds"]) == 5 and proof["distance"] < 1e-5 and proof["cosine"] > 0.99999
    shown = capsys.readouterr().out
    assert "opset 18" in shown and f"lowest cosine {proof['cosine']:.7f}" in shown


def test_export_that_differs_from_pytorch_leaves_no_file(
    exported_once, checkpoint, tmp_path, monkeypatch
):
    monkeypatch.setattr("sasv.export.proof.BOUND", 0.0)
    assert main(["export", str(checkpoint), str(tmp_path / "model.onnx")]) == 2
    assert not list(tmp_path.iterdir())


def test_int8_export_reports_its_loss_of_accuracy(
    exported_once, checkpoint, corpus, tmp_path, capsys
):
    tables = [f"--utterances={corpus}/utterances.tsv", f"--trials={corpus}/trials_dev.tsv"]
    words = ["export", str(checkpoint), str(tmp_path / "int8.onnx"), "--int8"]
    assert main(words) == 2
    assert "give --utterances" in capsys.readouterr().err
    assert main([*words, *tables, f"--enrolments={corpus}/enrolments_dev.tsv"]) == 0
    assert "SV-EER" in capsys.readouterr().out
    own = OnnxModel(tmp_path / "int8.onnx")
    assert own.record.precision == "int8"
    assert own.fingerprint != load_model(checkpoint, "cpu").fingerprint


def weighty(*names):
    """Return a network of layers in a row, each after a ReLU; the first is the front-end."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights, nodes, last = [], [], "x"
    for name in names:
        size = (64, 32) if name == "small" else (64, 64)
        values = rng.standard_normal(size).astype(np.float32) / 8
        weights.append(numpy_helper.from_array(values[:, :64], f"{name}.weight"))
        nodes.append(helper.make_node("MatMul", [last, f"{name}.weight"], [name], name))
        nodes.append(helper.make_node("Relu", [name], [f"{name}+"], f"relu {name}"))
        last = f"{name}+"
    nodes[-1].output[0] = "embedding"
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 64])
        for name in ("x", "embedding")
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_layers_to_quantise_are_selected(monkeypatch):
    """Not the front-end's, none of few weights, and first those that move the embeddings least."""
    proto = weighty("front", "a", "b", "c", "small")
    assert quantise.layers(proto, "front.") == ["a", "b", "c"]
    with pytest.raises(SasvError, match="no layer of this network"):
        next(quantise.quantised(weighty("front", "small"), "front.", []))
    monkeypatch.setattr(quantise, "restored", lambda quantised, original, names: names)
    moved = {"a": 0.1, "b": 0.001, "c": 0.015}
    monkeypatch.setattr(quantise, "MOST_GROUPS", 3)

    def distance(exact):
        (alone,) = moved.keys() - exact
        return moved[alone]

    found = quantise.by_sensitivity(None, None, list("abc"), distance)
    assert [group.layers for group in found] == [["a"], ["c"], ["b"]]


def test_each_quantised_form_is_closer_to_the_original(monkeypatch):
    """Their weights that are not in eight bits take two bytes each."""
    proto = weighty("front", "a", "b", "c")
    quantised = []
    monkeypatch.setattr(quantise, "_quantised", lambda proto, names, waves: quantised.append(names))
    monkeypatch.setattr(quantise, "restored", lambda whole, proto, exact: exact)
    monkeypatch.setattr(quantise, "halved", lambda proto, frontend: None)
    monkeypatch.setattr(quantise, "MOST_GROUPS", 3)
    moved = {"a": 0.1, "b": 0.001, "c": 0.006}
    monkeypatch.setattr(
        quantise,
        "_distance_from",
        lambda proto, waves: (
            lambda exact: sum(moved[name] for name in moved.keys() - (exact or ()))
        ),
    )
    assert len(list(quantise.quantised(proto, "front.", []))) == 2
    assert quantised == [["a", "b", "c"], ["b", "c"], ["b"]]


def test_weights_in_half_precision_give_the_same_results():
    proto = weighty("front", "a", "small")
    data = np.random.default_rng(1).standard_normal((4, 64)).astype(np.float32)
    results = []
    sizes = []
    for one in (proto, quantise.halved(copy.deepcopy(proto), "front.")):
        exported = one.SerializeToString()
        sizes.append(len(exported))
        results.append(new_session(exported, 1).run(["embedding"], {"x": data})[0])
    assert sizes[0] - sizes[1] == pytest.approx(2 * 64 * 64, abs=200)
    np.testing.assert_allclose(*results, rtol=2e-3, atol=2e-3)
    assert not np.array_equal(*results)


def test_restoring_every_quantised_layer_gives_the_original(monkeypatch):
    """A quantised network of which every layer is restored is the original."""
    proto = weighty("front", "a", "b", "c")
    data = np.random.default_rng(1).standard_normal((4, 64)).astype(np.float32)
    monkeypatch.setattr(
        quantise, "_Recordings", lambda waves: iter_of({"x": row[None]} for row in waves)
    )

    def embedded(one):
        return new_session(one.SerializeToString(), 1).run(["embedding"], {"x": data})[0]

    whole = quantise._quantised(proto, list("abc"), data)
    expected = embedded(proto)
    np.testing.assert_allclose(embedded(quantise.restored(whole, proto, set("abc"))), expected)
    moved = [
        np.abs(embedded(quantise.restored(whole, proto, set(names))) - expected).max()
        for names in ("", "a", "ab", "b")
    ]
    assert moved[0] > moved[2] > 0 and min(moved) > 1e-4


def iter_of(rows):
    """Return what the quantiser reads."""
    from onnxruntime.quantization import CalibrationDataReader

    class Rows(CalibrationDataReader):
        def get_next(self):
            return next(rows, None)

    return Rows()


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
    assert row["first_score_cpu_ms"] > row["start_ms"] / 10


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


def test_internal_value_may_share_the_name_of_an_output():
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
