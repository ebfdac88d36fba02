"""The arithmetic of a GPU: without TF32 unless requested, and deterministic if requested."""

import pytest
import torch

from conftest import tiny_options
from sasv import load_model
from sasv.commands import train
from sasv.encoders.base import Encoder
from sasv.parallel.devices import arithmetic


def flags():
    """Return the settings of PyTorch for the arithmetic of a GPU."""
    return (
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
        torch.are_deterministic_algorithms_enabled(),
    )


def test_previous_torch_settings_are_restored(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    before = flags()
    with arithmetic():
        assert flags() == (False, False, False)
    with pytest.raises(KeyError), arithmetic(tf32=True, deterministic=True):
        assert flags() == (True, True, True)
        raise KeyError
    assert flags() == before


@pytest.mark.slow
def test_embeddings_are_computed_in_full_precision(trained, voice, monkeypatch):
    seen = []
    original = Encoder.embed_features

    def watched(self, *inputs):
        seen.append(flags())
        return original(self, *inputs)

    monkeypatch.setattr(Encoder, "embed_features", watched)
    torch.backends.cudnn.allow_tf32 = True  # as PyTorch has it
    load_model(str(trained / "model.safetensors"), "cpu").embed(voice(16000))
    assert seen == [(False, False, False)]


@pytest.mark.slow
@pytest.mark.parametrize("chosen", [{}, {"tf32": True}, {"deterministic": True}])
def test_training_uses_the_arithmetic_of_its_options(corpus, tmp_path, monkeypatch, chosen):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    seen = set()
    original = Encoder.embed_features

    def watched(self, *inputs):
        if self.training:
            seen.add(flags())
        return original(self, *inputs)

    monkeypatch.setattr(Encoder, "embed_features", watched)
    short = {"epochs": 1, "batches_per_epoch": 1, "dev_trials": "", "dev_enrolments": ""}
    train(tiny_options(corpus, tmp_path, **short, **chosen))
    tf32 = chosen.get("tf32", False)
    assert seen == {(tf32, tf32, chosen.get("deterministic", False))}


@pytest.mark.gpu
@pytest.mark.slow
def test_gpu_scores_equal_cpu_scores(trained, voice):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    waves = [voice(16000 + 1000 * seed, seed) for seed in range(4)]
    models = [load_model(str(trained / "model.safetensors"), where) for where in ("cpu", "cuda")]
    one, two = (torch.from_numpy(model.embed_many(waves)) for model in models)
    one = torch.nn.functional.normalize(one)
    two = torch.nn.functional.normalize(two)
    assert (one @ one.T - two @ two.T).abs().max() < 1e-5
