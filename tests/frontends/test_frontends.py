"""Properties of every registered front-end, and the log-mel features of the published system."""

import json

import pytest
import torch

from sasv.core.errors import SasvError
from sasv.frontends import FRONTENDS, make_frontend
from sasv.frontends.logmel import LogMel, LogMelOptions, mel_filters


@pytest.fixture(scope="module", params=list(FRONTENDS))
def frontend(request):
    return make_frontend(request.param)


def test_predicted_frames_and_feature_size_are_correct(frontend):
    for samples in (frontend.min_samples, frontend.min_samples + 1, 16000, 16159, 16160, 20007):
        features = frontend(torch.randn(2, samples) * 0.1)
        assert features.shape == (2, frontend.feature_size, frontend.frames(samples))
    lengths = torch.tensor([frontend.min_samples, 16159])
    assert frontend.frames(lengths).tolist() == [frontend.frames(int(length)) for length in lengths]


def test_batched_equals_single_and_padding_is_zero(frontend):
    lengths = torch.tensor([20007, frontend.min_samples, 9001])
    batch = torch.randn(3, 20007) * 0.1
    together = frontend(batch, lengths)
    for row, wave, length in zip(together, batch, lengths.tolist()):
        alone = frontend(wave[None, :length])[0]
        frames = frontend.frames(length)
        torch.testing.assert_close(row[:, :frames], alone, rtol=1e-5, atol=1e-5)
        assert not row[:, frames:].any()


def test_options_round_trip(frontend):
    again = make_frontend(frontend.name, json.loads(json.dumps(frontend.option_values())))
    assert again.options == frontend.options
    assert FRONTENDS.get(frontend.name) is type(frontend)


def test_unknown_names_and_options():
    with pytest.raises(SasvError, match="unknown front-end 'log-mle'; did you mean log-mel"):
        make_frontend("log-mle")
    with pytest.raises(
        SasvError, match="option mels of front-end log-mel must be a whole number.*not 'many'"
    ):
        make_frontend("log-mel", {"mels": "many"})
    assert make_frontend("log-mel", {"mels": 40}).feature_size == 40


def test_logmel_removes_the_mean_and_ignores_level_changes():
    torch.manual_seed(0)
    frontend = LogMel()
    wave = torch.randn(1, 8000) * 0.2
    features = frontend(wave)
    assert features.shape == (1, 80, 8000 // 160 + 1)
    assert features.mean(dim=2).abs().max() < 1e-4
    assert (features - frontend(wave * 2)).abs().max() < 0.05
    assert mel_filters().shape == (257, 80)


def test_the_real_spectrogram_of_exports_equals_the_complex_one(monkeypatch, voice):
    frontend = LogMel(LogMelOptions(40))
    waves = torch.stack([torch.from_numpy(voice(20000, seed)) for seed in range(3)])
    expected = frontend(waves)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    found = frontend(waves)
    assert not torch.equal(found, expected)  # it was another road
    assert (found - expected).norm() / expected.norm() < 1e-5
