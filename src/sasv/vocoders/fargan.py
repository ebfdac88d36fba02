"""FARGAN (Valin et al. 2024, arXiv 2405.21069): the neural vocoder of the Opus library, through its
program ``fargan_demo``, which contains the weights. ``benchmarks/fargan.sh`` builds it.
"""

import subprocess
import tempfile
from pathlib import Path

import numpy as np

from sasv.core.errors import CheckpointError, SasvError
from sasv.vocoders.base import Vocoder

FRAME = 160
"""Samples of a frame."""

FIRST_FRAMES = 5
"""Frames at the beginning that the program only takes as history and does not synthesise."""

LAST_FRAMES = 4
"""Frames of silence behind, as the program leaves out an incomplete frame."""

DELAY = 240
"""Samples by which the copy is late."""

SECONDS = 600
"""After this time, the program is taken to hang; it copies a minute of speech in a second."""


class Fargan(Vocoder):
    """FARGAN; ``weights`` is the program fargan_demo of Opus 1.5 or later."""

    mel = "18 cepstral coefficients, pitch, and its correlation, every 10 ms"
    licence = "BSD-3-Clause (code and weights)"
    source = "the source of the Opus library (opus-codec.org): benchmarks/fargan.sh builds it"
    needs_weights = True

    def __init__(self, weights: str = "", device: str = "cpu") -> None:
        super().__init__(weights, device)
        if not Path(weights).is_file():
            raise CheckpointError(
                f"{weights}: no such file; it must be the program fargan_demo of Opus"
            )

    def resynthesise(self, wave: np.ndarray, seed: int) -> np.ndarray:
        before = FIRST_FRAMES * FRAME
        padded = np.pad(wave.clip(-1, 1), (before, DELAY + LAST_FRAMES * FRAME))
        with tempfile.TemporaryDirectory() as folder:
            speech = Path(folder, "speech.pcm")
            features = Path(folder, "features.f32")
            copy = Path(folder, "copy.pcm")
            speech.write_bytes((padded * 32767).round().astype("<i2").tobytes())
            self._run("-features", speech, features)
            self._run("-fargan-synthesis", features, copy)
            samples = np.fromfile(copy, "<i2")
        return samples[DELAY:].astype(np.float32) / 32767

    def _run(self, task: str, given: Path, made: Path) -> None:
        command = [str(Path(self.weights).resolve()), task, str(given), str(made)]
        try:
            ended = subprocess.run(command, capture_output=True, timeout=SECONDS)
        except (OSError, subprocess.SubprocessError) as error:
            raise self._wrong(str(error)) from error
        if ended.returncode != 0 or not made.is_file():
            raise self._wrong(f"ended with status {ended.returncode} and wrote nothing")

    def _wrong(self, why: str) -> SasvError:
        return SasvError(f"{self.weights}: {why}; it must be the program fargan_demo of Opus")
