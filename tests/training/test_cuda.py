"""Results of a GPU. These tests need one."""

import numpy as np
import pytest
import torch

from conftest import tiny_options
from sasv import load_model
from sasv.checkpoints import load_checkpoint
from sasv.commands import train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_embeddings_equal_those_of_the_cpu(trained):
    rng = np.random.default_rng(0)
    waves = [rng.normal(0, 0.1, size).astype(np.float32) for size in (16_000, 24_123)]
    path = str(trained / "model.safetensors")
    on_cpu = load_model(path, "cpu").embed_many(waves)
    on_gpu = load_model(path, "cuda").embed_many(waves)
    assert np.allclose(on_cpu, on_gpu, rtol=1e-3, atol=1e-3 * np.abs(on_cpu).max())


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_training_gives_finite_weights(corpus, tmp_path, precision):
    options = tiny_options(corpus, tmp_path, device="cuda", precision=precision, epochs=1)
    weights = load_checkpoint(train(options)).encoder.values()
    assert all(torch.isfinite(value).all() for value in weights)
