"""Every registered encoder exports: from samples and lengths, batch and time dynamic, to what it
computes itself. A new encoder is covered by being registered.
"""

import numpy as np
import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from sasv.encoders import ENCODERS, make_encoder, preset
from sasv.export.graph import Graph, to_onnx
from sasv.runtime.model import new_session

pytest.importorskip("onnxscript", reason="onnxscript is not installed")


def built(name):
    """Return the encoder at its preset "test", its batch norms with statistics that change
    something.
    """
    torch.manual_seed(0)
    encoder = make_encoder(name, preset(name, "test"))
    for part in encoder.modules():
        if isinstance(part, _BatchNorm):
            part.running_mean.normal_(0, 0.3)
            part.running_var.uniform_(0.5, 1.5)
            if part.affine:
                part.bias.data.normal_(0, 0.3)
    return encoder.eval().requires_grad_(False)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("name", list(ENCODERS))
def test_exported_equals_eager(name):
    """The shortest waveforms, one alone, and batches of unequal lengths (1e-5 relative)."""
    encoder = built(name)
    session = new_session(to_onnx(Graph(encoder, None)).SerializeToString(), threads=1)
    assert [one.shape for one in session.get_inputs()] == [["batch", "samples"], ["batch"]]
    least = encoder.min_samples
    for batch, samples in ((1, least), (2, 3 * least), (5, 20 * least + 13)):
        waves = torch.randn(batch, samples) * 0.1
        lengths = torch.randint(least, samples + 1, (batch,))
        lengths[0] = samples
        expected = encoder(waves, lengths)
        feed = {"samples": waves.numpy(), "lengths": lengths.numpy()}
        found = session.run(["embedding"], feed)[0]
        assert np.linalg.norm(found - expected.numpy()) / expected.norm() < 1e-5
