"""The cost of an exported model: error rates on development trials, file size, and speed."""

import logging
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sasv.core.onnx import new_session
from sasv.evaluation.protocol import Protocol
from sasv.metrics import sasv_eers
from sasv.runtime.embedder import Embedder
from sasv.runtime.model import SUFFIX, OnnxModel, run_session
from sasv.runtime.record import EMBEDDING
from sasv.scores import score_embeddings

logger = logging.getLogger("sasv")

RATES = ("sasv_eer", "sv_eer", "spf_eer")
HELD = ("sv_eer", "spf_eer")
"""Error rates that eight bits may change by no more than ``LARGEST_CHANGE``."""

LARGEST_CHANGE = 0.2
"""In percentage points."""


@dataclass(frozen=True)
class Recordings:
    """Recordings of a table, as a model reads them: some to measure the ranges for int8, five
    others for the proof.
    """

    ranges: list[np.ndarray]
    proof: list[np.ndarray]


def some_recordings(model: Embedder, paths: list[str], seed: int, most: int = 64) -> Recordings:
    """Read randomly chosen recordings of a table.

    Args:
        model: reads the recordings in the same way as for embedding.
        paths: paths of all recordings.
        seed: random seed.
        most: maximum number of recordings on which the ranges are measured.
    """
    order = np.random.default_rng(seed).permutation(len(paths))[: most + 5]
    waves = [model.read(paths[row]) for row in order]
    kept = min(5, len(waves))
    return Recordings(waves[kept:] or waves, waves[:kept])


def real_time_factor(exported: bytes, waves: Sequence[np.ndarray], rate: int) -> float:
    """Return the processor time of an exported model for a second of audio, in one thread: the
    lowest of three runs.
    """
    session = new_session(exported, 1)
    seconds = []
    for _ in range(3):
        begun = time.process_time()
        for wave in waves:
            run_session(session, [wave], [EMBEDDING])
        seconds.append(time.process_time() - begun)
    return min(seconds) / (sum(len(wave) for wave in waves) / rate)


class Trials:
    """Trials on which an exported model is compared with the original.

    Attributes:
        protocol: the trials.
        before: error rates of the original in percent.
        after: those of the exported form that was measured last.
    """

    def __init__(self, original: Embedder, protocol: Protocol) -> None:
        """Measure the original."""
        assert protocol.trials is not None
        logger.info(f"scoring {len(protocol.trials)} trials with the original")
        self.protocol = protocol
        self.before = error_rates(original, protocol)
        self.after: dict[str, float | None] = {}

    def measure(self, exported: bytes) -> None:
        """Measure an exported model."""
        logger.info("scoring the trials with the exported model")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"exported{SUFFIX}"
            path.write_bytes(exported)
            self.after = error_rates(OnnxModel(path), self.protocol)

    @property
    def changes(self) -> dict[str, float]:
        """By how much the error rates that have to stay changed, in percentage points."""
        found = {}
        for name in HELD:
            before = self.before[name]
            after = self.after[name]
            if before is not None and after is not None:
                found[name] = abs(after - before)
        return found


def error_rates(model: Embedder, protocol: Protocol) -> dict[str, float | None]:
    """Return the equal error rates of a model on trials in percent.

    Raises:
        SasvError: a recording cannot be embedded.
    """
    assert protocol.enrolments is not None and protocol.trials is not None
    utterances = protocol.utterances
    vectors = np.stack([model.embed(path) for path in utterances.paths])
    scores = score_embeddings(vectors, utterances.ids, protocol.enrolments, protocol.trials)
    found = sasv_eers(scores, protocol.trials.labels)
    return {name: found[name] for name in RATES}
