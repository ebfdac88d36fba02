"""Checks an export by comparing PyTorch with ONNX Runtime on synthetic voiced sounds of five
lengths, with their whole spectrum and with almost nothing above 3.4 kHz.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sasv.core.errors import SasvError
from sasv.core.onnx import new_session, onnx_runtime
from sasv.embeddings.model import Model
from sasv.runtime.model import run_session
from sasv.runtime.record import CM_SCORE, EMBEDDING
from sasv.scores import unit

SECONDS = (0.0, 1.0, 2.3, 4.1, 7.7)
"""Lengths of the sounds in seconds. None is shorter than the shortest waveform that the model can
embed.
"""

BOUND = 1e-4
"""Maximum distance between the embeddings of both, relative to the norm of that of PyTorch."""

NARROW_HZ = 3400.0
NARROW_DB_PER_KHZ = 30.0
NARROW_DB = 160.0
"""The spectrum of narrow-band sounds falls this steeply above this frequency, at most by so much.
In some band it passes through any limit below which a front-end takes energies for zero, where
features are most sensitive to rounding.
"""

INT8_COSINE = 0.9
"""Minimum cosine between the embedding of PyTorch and that of the quantised model."""


@dataclass(frozen=True)
class Proof:
    """How an exported model was compared with the original.

    Attributes:
        seconds: lengths of the recordings, each of which is embedded alone and all in one batch.
        cosine: lowest cosine between the embeddings of both.
        distance: largest distance between the embeddings of both, relative to the norm of that of
            PyTorch.
        largest_difference: largest difference between two entries of the embeddings.
        cm_difference: largest difference between two countermeasure scores; None for a model
            without them.
        onnxruntime: version of ONNX Runtime.
        torch: version of PyTorch.
    """

    seconds: list[float]
    cosine: float
    distance: float
    largest_difference: float
    cm_difference: float | None
    onnxruntime: str
    torch: str

    def to_dict(self) -> dict[str, Any]:
        """Return the proof as plain values for JSON."""
        return asdict(self)

    def check(self, precision: str) -> None:
        """Check that the exported model equals the original. Raises SasvError with the difference
        if not.
        """
        if precision == "float32" and not self.distance <= BOUND:
            raise SasvError(
                f"the exported model differs from the original by {self.distance:.1e} of the norm "
                f"of an embedding, more than {BOUND:.0e}; nothing was written. Please report this, "
                "with the model"
            )
        if precision != "float32" and not self.cosine >= INT8_COSINE:
            raise SasvError(
                "the cosine between embeddings of the quantised model and the original is only "
                f"{self.cosine:.3f}, less than {INT8_COSINE:g}; nothing was written. Export the "
                "model without --int8"
            )


def sounds(rate: int, least: int) -> list[np.ndarray]:
    """Return voiced sounds of five lengths: harmonics of a moving pitch through moving resonances,
    and noise. The same sounds in narrow band follow.
    """
    found = []
    for number, seconds in enumerate(SECONDS):
        rng = np.random.default_rng(number)
        count = max(least + number, round(seconds * rate))
        time = np.arange(count) / rate
        pitch = 90.0 + 30.0 * number + 15.0 * np.sin(2 * np.pi * 1.3 * time)
        phase = 2 * np.pi * np.cumsum(pitch) / rate
        wave = 0.01 * rng.standard_normal(count)
        for harmonic in range(1, 30):
            hertz = harmonic * pitch
            formants = (500 + 200 * np.sin(2 * np.pi * 2.1 * time), 1500 + 300 * np.cos(3 * time))
            gain = sum(np.exp(-(((hertz - formant) / 250) ** 2)) for formant in formants)
            wave += 0.1 * (gain + 0.05) * np.sin(harmonic * phase)
        found.append((wave / max(1.0, np.abs(wave).max() / 0.9)).astype(np.float32))
    return [*found, *(narrowed(wave, rate) for wave in found)]


def narrowed(wave: np.ndarray, rate: int) -> np.ndarray:
    """Return a sound with almost nothing above 3.4 kHz, as loud as possible."""
    spectrum = np.fft.rfft(wave.astype(np.float64))
    above = np.maximum(np.fft.rfftfreq(len(wave), 1 / rate) - NARROW_HZ, 0) / 1000
    gain = 10 ** (-np.minimum(NARROW_DB_PER_KHZ * above, NARROW_DB) / 20)
    narrow = np.fft.irfft(spectrum * gain, len(wave))
    loud: np.ndarray = 0.9 * narrow / np.abs(narrow).max()
    return loud.astype(np.float32)


def prove(model: Model, exported: bytes, waves: Sequence[np.ndarray]) -> Proof:
    """Compare a model with its exported form on recordings of several lengths, each alone and all
    in a batch.

    Args:
        model: the original, on a CPU.
        exported: the ONNX file.
        waves: the recordings, from ``sounds`` or real ones.

    Raises:
        SasvError: ONNX Runtime cannot load or run the exported model.
    """
    import torch

    onnxruntime = onnx_runtime()

    specification = model.specification
    try:
        session = new_session(exported)
        outputs = [output.name for output in session.get_outputs()]
        expected, found = [], []
        for batch in [*([wave] for wave in waves), waves]:
            expected.append(_scored(model, batch, outputs))
            found.append(dict(zip(outputs, run_session(session, batch, outputs))))
    except Exception as error:  # the errors of ONNX Runtime have no common base class
        if isinstance(error, SasvError):
            raise
        reason = " ".join(str(error).split())[:300]
        raise SasvError(f"ONNX Runtime cannot run the exported model: {reason}") from error
    eager, other = (np.concatenate([one[EMBEDDING] for one in side]) for side in (expected, found))
    distances = np.linalg.norm(eager - other, axis=1) / np.linalg.norm(eager, axis=1)
    cm_difference = None
    if CM_SCORE in outputs:
        first, second = (
            np.concatenate([one[CM_SCORE] for one in side]) for side in (expected, found)
        )
        cm_difference = float(np.abs(first - second).max())
    return Proof(
        seconds=sorted({round(len(wave) / specification.sample_rate, 3) for wave in waves}),
        cosine=float((unit(eager) * unit(other)).sum(axis=1).min()),
        distance=float(distances.max()),
        largest_difference=float(np.abs(eager - other).max()),
        cm_difference=cm_difference,
        onnxruntime=onnxruntime.__version__,
        torch=str(torch.__version__),
    )


def _scored(
    model: Model, waves: Sequence[np.ndarray], outputs: Sequence[str]
) -> dict[str, np.ndarray]:
    vectors = model.embed_whole(waves)
    found = {EMBEDDING: vectors}
    if CM_SCORE in outputs:
        found[CM_SCORE] = model.bona_fide_scores(vectors)
    return found
