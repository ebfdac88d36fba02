"""Files for sherpa-onnx: Kaldi filter banks as input, and the metadata that it reads."""

import numpy as np
import pytest
import torch

from sasv.checkpoints import Checkpoint, Specification, load_checkpoint
from sasv.core.errors import SasvError
from sasv.core.onnx import new_session
from sasv.encoders import make_encoder, preset
from sasv.export.sherpa import EMBEDDING, FEATURES, export_for_sherpa


@pytest.mark.slow
def test_other_features_are_refused(trained, tmp_path):
    with pytest.raises(SasvError, match="uses other features"):
        export_for_sherpa(load_checkpoint(trained / "model.safetensors"), tmp_path / "out.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_network_that_takes_filter_banks(tmp_path):
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    torch.manual_seed(0)
    encoder = make_encoder("ecapa-tdnn", preset("ecapa-tdnn", "test"), "kaldi").eval()
    checkpoint = Checkpoint(Specification(**encoder.description()), encoder.state_dict())
    result = export_for_sherpa(checkpoint, tmp_path / "out.onnx")
    assert result["distance"] < 1e-5
    session = new_session((tmp_path / "out.onnx").read_bytes(), threads=1)
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["framework"] == "wespeaker" and metadata["sample_rate"] == "16000"
    assert metadata["output_dim"] == str(encoder.dimension)
    assert metadata["normalize_samples"] == "1"
    features = np.random.default_rng(0).standard_normal((2, 150, 80)).astype(np.float32)
    found = session.run([EMBEDDING], {FEATURES: features})[0]
    shifted = session.run([EMBEDDING], {FEATURES: features + 3})[0]
    assert found.shape == (2, encoder.dimension)
    np.testing.assert_allclose(shifted, found, rtol=1e-3, atol=1e-4)
