"""Compares Kaldi filter banks with kaldi-native-fbank, and the front-ends of other toolkits with
the originals.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sasv.core.errors import SasvError
from sasv.frontends import FRONTENDS, make_frontend

knf = pytest.importorskip(
    "kaldi_native_fbank", reason="kaldi-native-fbank is not installed (extra dev)"
)

LAYOUTS = {
    "kaldi80-hamming-int16": ("kaldi", {"window": "hamming", "scale": 32768.0}),
    "kaldi80-povey": ("kaldi", {}),
    "speechbrain80": ("speechbrain", {}),
}
WINDOWS = ["povey", "hamming", "hanning", "rectangular", "blackman"]


def kaldi(wave, o):
    """Return filter banks from Kaldi's own code, (frames, mels)."""
    options = knf.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.window_type = o.window
    options.frame_opts.snip_edges = o.snip_edges
    options.frame_opts.preemph_coeff = o.pre_emphasis
    options.frame_opts.remove_dc_offset = o.remove_dc
    options.frame_opts.samp_freq = o.sample_rate
    options.frame_opts.frame_length_ms = o.frame_length_ms
    options.frame_opts.frame_shift_ms = o.frame_shift_ms
    options.mel_opts.num_bins = o.mels
    options.mel_opts.low_freq = o.low_hz
    options.mel_opts.high_freq = o.high_hz
    extractor = knf.OnlineFbank(options)
    extractor.accept_waveform(o.sample_rate, (wave * o.scale).tolist())
    extractor.input_finished()
    bands = np.array([extractor.get_frame(index) for index in range(extractor.num_frames_ready)])
    return bands - bands.mean(axis=0) if o.subtract_mean else bands


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"snip_edges": False},
        {"mels": 40, "low_hz": 64.0, "high_hz": -400.0, "pre_emphasis": 0.0, "remove_dc": False},
        {"scale": 32768.0, "subtract_mean": False, "frame_length_ms": 20.0, "mels": 23},
        {"sample_rate": 8000, "mels": 40, "high_hz": 3700.0},
    ],
)
def test_features_equal_those_of_kaldi(window, options, fill):
    frontend = make_frontend("kaldi", {"window": window, **options})
    wave = fill.waveform(12345, 5)
    found = frontend(torch.from_numpy(wave)[None])[0].T.numpy()
    expected = kaldi(wave, frontend.options)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 2e-4


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_features_equal_those_of_the_original_toolkits(layout, fill, peers):
    frontend = make_frontend(*LAYOUTS[layout])
    found = frontend(torch.from_numpy(fill.waveform(16500, 2))[None])[0].T.numpy()
    expected = peers[f"frontend/{layout}/16500"]
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-3


FRONTEND_CASES = {
    **{name: {} for name in FRONTENDS},
    "kaldi/mirrored": {"snip_edges": False},
    "kaldi/variance": {"normalise_variance": True},
    "log-mel/redimnet": {"mels": 72, "hop": 240, "normalise": True},
    "waveform/normalised": {"normalise": True},
}


@pytest.mark.slow
@pytest.mark.parametrize("case", list(FRONTEND_CASES))
@given(lengths=st.lists(st.integers(1600, 9000), min_size=2, max_size=4), seed=st.integers(0, 99))
@settings(max_examples=8, deadline=None)
def test_features_in_a_batch_are_those_of_the_waveform_alone(case, lengths, seed):
    frontend = make_frontend(case.split("/")[0], FRONTEND_CASES[case])
    rng = np.random.default_rng(seed)
    batch = torch.full((len(lengths), max(lengths)), 0.7)
    for row, length in zip(batch, lengths):
        row[:length] = torch.from_numpy(rng.standard_normal(length).astype(np.float32)) * 0.1
    together = frontend(batch, torch.tensor(lengths))
    frames = frontend.frames(torch.tensor(lengths))
    assert together.shape[1] == frontend.feature_size
    for index, length in enumerate(lengths):
        alone = frontend(batch[index : index + 1, :length])[0]
        assert alone.shape[1] == frames[index] == frontend.frames(length)
        assert (together[index, :, : frames[index]] - alone).abs().max() < 1e-3
        assert (together[index, :, frames[index] :] == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", list(FRONTENDS))
def test_what_is_exported_needs_no_complex_numbers(name):
    frontend = make_frontend(name)
    waves = torch.randn(2, 8000) * 0.1
    program = torch.export.export(frontend, (waves,))
    values = [node.meta.get("val") for node in program.graph.nodes]
    kinds = {str(value.dtype) for value in values if isinstance(value, torch.Tensor)}
    assert "torch.complex64" not in kinds
    assert (program.module()(waves) - frontend(waves)).abs().max() < 1e-3


def test_impossible_options_are_errors():
    with pytest.raises(SasvError, match="option window of front-end kaldi must be one of povey"):
        make_frontend("kaldi", {"window": "hann"})
    with pytest.raises(
        SasvError, match="low_hz must be below high_hz, and both below half the sample rate"
    ):
        make_frontend("kaldi", {"high_hz": 9000.0})
    with pytest.raises(SasvError, match="scale"):
        make_frontend("kaldi", {"scale": 0})
