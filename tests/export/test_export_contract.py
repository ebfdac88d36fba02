"""Every registered encoder can be exported with samples and lengths as inputs and dynamic batch and
time dimensions, and gives the same results. A new encoder is tested as soon as it is registered.
"""

import numpy as np
import pytest
import torch

from conftest import built_encoder
from sasv.core.onnx import new_session
from sasv.encoders import ENCODERS
from sasv.export.graph import Graph, to_onnx

pytest.importorskip("onnxscript", reason="onnxscript is not installed")


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("name", list(ENCODERS))
def test_exported_equals_eager(name):
    """The shortest waveforms, one alone, and batches of unequal lengths (1e-5 relative)."""
    encoder = built_encoder(name).requires_grad_(False)
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
