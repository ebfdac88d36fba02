"""Shared fixtures. Material outside the project lies in ``shared/`` beside the checkout; tests skip without it."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"
PUBLISHED_NAMES = {"ecapa-tdnn": "ECAPA_TDNN", "ska-tdnn": "SKA_TDNN", "mfa-conformer": "MFA_Conformer"}

SMALL = {
    "ecapa-tdnn": {"channels": 32, "scale": 4, "bottleneck": 8, "pooled": 48, "attention": 16, "embedding": 24},
    "ska-tdnn": {
        "channels": 32, "scale": 4, "bottleneck": 8, "pooled": 48, "attention": 16, "embedding": 24, "front": 8,
    },
    "mfa-conformer": {"units": 32, "heads": 2, "blocks": 2, "feedforward": 48, "attention": 16, "embedding": 24},
}  # fmt: skip


def shared(*parts: str) -> Path:
    """Path below shared/; skips the test where it is missing."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"needs {path.relative_to(SHARED.parent)} beside the checkout, which is missing here")
    return path


@pytest.fixture(scope="session")
def golden():
    return np.load(shared("reference", "golden.npz"), allow_pickle=False)


@pytest.fixture(scope="session")
def fill():
    """The module that makes the inputs of the golden vectors."""
    spec = importlib.util.spec_from_file_location("fill", shared("reference", "fill.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def published_keys():
    """Entry name -> shape of each published checkpoint."""
    listed = json.loads(shared("reference", "state_dict_keys.json").read_text())
    return {model: {key: tuple(shape) for key, shape, _ in entries} for model, entries in listed.items()}


@pytest.fixture
def voice():
    """A function (samples, seed) -> voiced-like float32 waveform at 16 kHz."""

    def make(samples: int, seed: int = 0, pitch: float = 120.0) -> np.ndarray:
        rng = np.random.default_rng(seed)
        time = np.arange(samples) / 16000
        f0 = pitch * (1 + 0.1 * np.sin(2 * np.pi * 2.5 * time + seed))
        phase = 2 * np.pi * np.cumsum(f0) / 16000
        wave = sum(np.sin(k * phase) / k for k in range(1, 12)) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * time))
        return (0.05 * wave + 0.005 * rng.standard_normal(samples)).astype(np.float32)

    return make
