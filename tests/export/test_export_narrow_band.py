"""An exported model gives the scores of its checkpoint for speech whose spectrum is almost empty
above some frequency. There, the logarithm of a front-end makes the rounding of the Fourier
transform visible.
"""

import numpy as np
import pytest
import torch

from conftest import shared
from sasv.audio import read_audio
from sasv.audio.codecs import transmit
from sasv.cli import main
from sasv.core.onnx import new_session
from sasv.embeddings.model import load_model
from sasv.export.graph import exported
from sasv.export.proof import narrowed, sounds
from sasv.frontends import FRONTENDS, make_frontend
from sasv.frontends.base import Frontend
from sasv.runtime.model import OnnxModel, run_session
from sasv.scores import unit
from sasv.vocoders import make_vocoder

pytest.importorskip("onnxscript", reason="onnxscript is not installed")
pytestmark = pytest.mark.slow
RATE = 16000
FRONTEND_CASES = {
    **{name: {} for name in FRONTENDS},
    "kaldi/16-bit": {"scale": 32768.0, "window": "hamming"},
    "kaldi/variance": {"scale": 32768.0, "normalise_variance": True},
    "kaldi/odd": {"frame_length_ms": 25.1, "pre_emphasis": 0.95},
    "log-mel/normalised": {"normalise": True},
    "waveform/normalised": {"normalise": True},
}


def difficult():
    """Return sounds in narrow band, with an offset, too loud, very quiet, and between silence; one
    tone; silence.
    """
    narrow = narrowed(sounds(RATE, 1600)[2], RATE)
    time = np.arange(RATE) / RATE
    quiet = np.concatenate((narrow[:8000], np.zeros(8000), 1e-4 * narrow[:8000]))
    tone = 0.5 * np.sin(2 * np.pi * 1000.3 * time)
    found = (narrow, narrow / 4 + 0.3, 16 * narrow, quiet, tone, np.zeros(RATE))
    return [wave.astype(np.float32) for wave in found]


@pytest.mark.parametrize("case", list(FRONTEND_CASES))
def test_features_of_the_file_equal_those_of_pytorch(case):
    """To single precision, in any band."""
    frontend = make_frontend(case.split("/")[0], FRONTEND_CASES[case]).eval()
    dynamic = torch.export.Dim.DYNAMIC
    inputs = {"samples": torch.zeros(2, 20000), "lengths": torch.tensor([20000, 9000])}
    proto = exported(frontend, inputs, ({0: dynamic, 1: dynamic}, {0: dynamic}))
    session = new_session(proto.SerializeToString(), 1)
    for wave in difficult():
        expected = frontend(torch.from_numpy(wave)[None])[0].numpy()
        found = run_session(session, [wave], [session.get_outputs()[0].name])[0][0]
        assert found.dtype == expected.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-5)


@pytest.fixture(scope="module")
def compact(tmp_path_factory):
    """The model in the package, as PyTorch and ONNX Runtime run it."""
    path = tmp_path_factory.mktemp("compact") / "model.onnx"
    assert main(["export", "compact", str(path)]) == 0
    return load_model("compact", "cpu"), OnnxModel(path, threads=1)


def largest_difference_of_scores(models, waves):
    """Return the largest difference between PyTorch and ONNX Runtime of a cosine between
    recordings.
    """
    scores = []
    for model in models:
        vectors = unit(np.concatenate([model.embed_whole([wave]) for wave in waves]))
        scores.append(vectors.astype(np.float64) @ vectors.T.astype(np.float64))
    return np.abs(scores[0] - scores[1]).max()


def largest_difference_of_spoof_scores(models, waves):
    """Return the largest difference between PyTorch and ONNX Runtime of a spoof score, and those
    of PyTorch.
    """
    head = models[0].verifier().three_way.head
    scores = [
        head.scores(np.concatenate([model.embed_whole([wave]) for wave in waves]))
        for model in models
    ]
    return np.abs(scores[0] - scores[1]).max(), scores[0]


def spoken(seconds):
    """Return recordings of three speakers, each at most this long."""
    folder = shared("speech", "LibriSpeech", "train-clean-100")
    files = [sorted((folder / speaker).rglob("*.flac"))[0] for speaker in ("19", "26", "27")]
    return [read_audio(path)[: seconds * RATE] for path in files]


def between(model, bona_fide, spoof, wanted):
    """Return a mixture of speech and its copy with a spoof score near the one that is wanted."""
    head = model.verifier().three_way.head
    low, high = 0.0, 1.0
    for _ in range(10):
        share = (low + high) / 2
        mixed = ((1 - share) * bona_fide + share * spoof).astype(np.float32)
        if head.scores(model.embed_whole([mixed]))[0] > wanted:
            low = share
        else:
            high = share
    return mixed


@pytest.mark.long
def test_scores_of_narrow_band_sounds(compact):
    assert largest_difference_of_scores(compact, difficult()[:5]) < 1e-5


@pytest.mark.long
def test_export_in_single_precision_is_refused(tmp_path, monkeypatch, capsys):
    """Of louder sounds, whose rounding moves the embeddings seventy times as far as allowed."""
    louder = [4 * wave for wave in sounds(RATE, 1600)]
    monkeypatch.setattr("sasv.export.export.sounds", lambda rate, least: louder)
    monkeypatch.setattr(Frontend, "precise", lambda self, waves: waves.float())
    assert main(["export", "compact", str(tmp_path / "model.onnx")]) == 2
    assert "differs from the original" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.long
@pytest.mark.speech
def test_scores_of_speech_through_codecs(compact):
    """Telephone and internet codecs at their lowest and highest bit rates."""
    speech = spoken(5)
    codecs = [("amr", 4750), ("amr", 12200), ("mp3", 16000), ("opus", 8000), ("mulaw", None)]
    rng = np.random.default_rng(0)
    waves = [transmit(wave, name, rng, rate) for name, rate in codecs for wave in speech]
    louder = [16 * wave for wave in waves[:3]]
    shifted = [wave + np.float32(0.3) for wave in waves[:3]]
    waves = [*speech, *waves, *louder, *shifted]
    assert largest_difference_of_scores(compact, waves) < 1e-5
    assert largest_difference_of_spoof_scores(compact, waves)[0] < 1e-5


@pytest.mark.long
@pytest.mark.speech
def test_spoof_scores_between_those_of_speech_and_of_spoofs(compact):
    """Where the spoof score has its largest slope, the difference is larger than elsewhere."""
    speech = spoken(4)
    copies = [make_vocoder("world")(wave, RATE) for wave in speech]
    mixtures = [
        between(compact[1], *pair, wanted)
        for pair in zip(speech, copies)
        for wanted in (-0.2, -0.6)
    ]
    difference, scores = largest_difference_of_spoof_scores(compact, mixtures)
    assert ((scores > -0.95) & (scores < -0.02)).sum() >= 4
    assert difference < 3e-5
