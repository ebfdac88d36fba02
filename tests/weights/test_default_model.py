"""The models that come with the package: their size, their cards, and their performance without any
download.
"""

import socket
from pathlib import Path

import numpy as np
import pytest

from conftest import shared
from sasv import load_model
from sasv.audio import read_audio
from sasv.checkpoints import load_checkpoint
from sasv.commands import EmbedOptions, VerifyOptions, embed, verify
from sasv.tables import load_enrolments, load_trials, load_utterances
from sasv.vocoders import make_vocoder
from sasv.weights import catalogue, resolve
from sasv.weights.catalogue import DEFAULT


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize(
    ("name", "licence", "size"), [(DEFAULT, "Apache-2.0", 15e6), ("compact", "Apache-2.0", 3.2e6)]
)
def test_default_model_is_small_licensed_and_has_a_model_card(name, licence, size):
    path = resolve(name)
    assert path.stat().st_size < size
    specification = load_checkpoint(name).specification
    assert specification.licence == catalogue()[name].licence == licence
    assert specification.threshold is not None
    assert " calibrated on " in specification.threshold_source
    assert specification.calibration is not None
    card = path.with_suffix(".md").read_text()
    for part in ("Data", "Licence", "Training", "Figures", "Where it fails"):
        assert f"## {part}" in card


@pytest.mark.slow
@pytest.mark.parametrize("name", [DEFAULT, "compact"])
def test_the_models_separate_speakers_and_spoofs(name):
    verifier = load_model(name, "cpu").verifier()
    assert verifier.three_way.calibration.spoof_axis
    assert verifier.three_way.calibration.costs.name == "a-dcf-paper"
    notice = (Path(__file__).parents[2] / "NOTICE").read_text()
    assert "3D-Speaker" in notice and "Apache License" in notice
    assert f"src/sasv/weights/{name}.safetensors is a modification" in notice


def test_compact_is_a_smaller_network_and_not_only_a_smaller_file():
    sizes = {
        name: sum(value.numel() for value in load_checkpoint(name).encoder.values())
        for name in (DEFAULT, "compact")
    }
    assert sizes["compact"] < 0.45 * sizes[DEFAULT]


@pytest.mark.slow
def test_embed_uses_the_default_model(corpus, tmp_path):
    table = str(corpus / "utterances.tsv")
    speaker = load_utterances(table).table.text("speaker", 0)
    where = f"speaker={speaker}"
    found = embed(EmbedOptions(table, str(tmp_path), where=where, device="cpu"))
    assert found.vectors.shape == (len(load_utterances(table, where)), 193)


@pytest.fixture(scope="module")
def held_out():
    """Real speakers that were not in the training data: enrolments, trials, and the path of each
    utterance.
    """
    folder = shared("speech")
    table = load_utterances(folder / "utterances.tsv")
    paths = dict(zip(table.ids, table.paths))
    return (
        load_enrolments(folder / "enrolments_test.tsv"),
        load_trials(folder / "trials_test.tsv"),
        paths,
    )


@pytest.mark.slow
@pytest.mark.speech
def test_verify_on_real_speech_right_after_installation(held_out, capsys):
    enrolments, trials, paths = held_out
    speaker = enrolments.speakers[0]
    own = [paths[name] for name in enrolments.utterances[0]]
    rows = [row for row in range(len(trials)) if trials.table.text("speaker", row) == speaker]
    scores = {}
    for label in (0, 1):
        row = next(row for row in rows if trials.labels[row] == label)
        result = verify(
            VerifyOptions(
                [*own, paths[trials.table.text("utterance", row)]], json=True, device="cpu"
            )
        )
        scores[label] = result["llr"]
    assert scores[0] > scores[1]
    assert {"decision", "score", "llr", "costs", "recordings"} <= set(result)


@pytest.mark.long
@pytest.mark.speech
@pytest.mark.slow
def test_default_model_separates_speakers_and_copies(held_out):
    """For unseen speakers with a few trials each, targets score higher on average than nontargets
    and copies by WORLD.
    """
    enrolments, trials, paths = held_out
    model = load_model(DEFAULT, "cpu")
    vocoder = make_vocoder("world")
    voiceprints = {
        name: model.enrol([paths[one] for one in files[:2]])
        for name, files in zip(enrolments.speakers, enrolments.utterances)
    }
    scores = {"target": [], "nontarget": [], "copy": []}
    rng = np.random.default_rng(0)
    for label, name in ((0, "target"), (1, "nontarget")):
        for row in rng.permutation(np.flatnonzero(trials.labels == label))[:8].tolist():
            claimed, path = (
                trials.table.text("speaker", row),
                paths[trials.table.text("utterance", row)],
            )
            scores[name].append(model.score(voiceprints[claimed], model.embed(path)))
            if not label:
                copy = vocoder(read_audio(path), 16000)
                scores["copy"].append(model.score(voiceprints[claimed], model.embed(copy)))
    means = {name: float(np.mean(values)) for name, values in scores.items()}
    assert means["target"] > means["nontarget"] + 0.2 and means["target"] > means["copy"] + 0.1, (
        means
    )
