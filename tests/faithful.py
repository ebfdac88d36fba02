"""Measures of how close a copy is to its original, for tests and benchmarks."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from sasv.vocoders.neural import Mel

CEPSTRA = 24
"""Mel-cepstral coefficients 1 to 24 are compared; the 0th is the level."""


def mel_cepstral_distortion(wave: np.ndarray, copy: np.ndarray) -> float:
    """Return the mel-cepstral distortion in dB over the frames within 40 dB of the loudest
    (Kubichek 1993).

    Cepstra of 80 log-mel bands, frame by frame: a copy is aligned with its original.
    """
    mels = [log_mel(x) for x in (wave, copy)]
    order, at = np.arange(1, CEPSTRA + 1)[:, None], np.arange(80)[None]
    cepstra = (
        np.cos(np.pi / 80 * (at + 0.5) * order) / 80 @ (mels[0] - mels[1])
    )  # log|H| = c0 + 2 sum c_k cos(k w)
    level = np.exp(mels[0]).mean(axis=0)
    distances = 10 / np.log(10) * np.sqrt(2 * np.square(2 * cepstra).sum(axis=0))
    return float(distances[level > 0.01 * level.max()].mean())


def log_mel(wave: np.ndarray, bands: int = 80) -> np.ndarray:
    """Return natural-log magnitude mels, (bands, frames)."""
    mel = Mel(16000, 512, 512, 128, bands, 0.0, 8000.0)
    return mel(torch.from_numpy(np.ascontiguousarray(wave, np.float32))[None])[0].numpy()


class Resemblyzer(torch.nn.Module):
    """The independent speaker encoder whose weights come in the wheel of Resemblyzer (Wan et al.
    2018).
    """

    def __init__(self) -> None:
        super().__init__()
        found = importlib.util.find_spec("resemblyzer")
        if found is None:
            pytest.skip("Resemblyzer is not installed: pip install --no-deps Resemblyzer")
        weights = torch.load(
            Path(found.submodule_search_locations[0]) / "pretrained.pt", "cpu", weights_only=True
        )
        self.lstm = torch.nn.LSTM(40, 256, 3, batch_first=True)
        self.linear = torch.nn.Linear(256, 256)
        wanted = {
            name: value
            for name, value in weights["model_state"].items()
            if name.startswith(("lstm", "linear"))
        }
        self.load_state_dict(wanted)
        self.filters = Mel(16000, 400, 400, 160, 40, 0.0, 8000.0).filters

    @torch.inference_mode()
    def forward(self, wave: np.ndarray) -> np.ndarray:
        """Return the unit-length embedding of speech at 16 kHz, (256,): the mean over windows of
        1.6 s.
        """
        level = 10 ** (-30 / 20)
        wave = torch.from_numpy(wave * max(1.0, level / np.sqrt(np.square(wave).mean())))
        spectrum = torch.stft(
            wave, 400, 160, window=torch.hann_window(400), pad_mode="constant", return_complex=True
        )
        mels = (self.filters @ spectrum.abs().square()).T
        windows = torch.stack(
            [mels[start : start + 160] for start in range(0, len(mels) - 159, 77)]
        )
        _, (hidden, _) = self.lstm(windows)
        vectors = torch.nn.functional.normalize(torch.relu(self.linear(hidden[-1])), dim=1)
        return torch.nn.functional.normalize(vectors.mean(dim=0), dim=0).numpy()
