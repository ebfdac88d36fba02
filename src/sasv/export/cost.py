"""The cost of an exported model: error rates on development trials, file size, and speed."""

from dataclasses import dataclass

import numpy as np

from sasv.evaluation.protocol import Protocol
from sasv.metrics import sasv_eers
from sasv.runtime.embedder import Embedder
from sasv.scores import score_embeddings

RATES = ("sasv_eer", "sv_eer", "spf_eer")


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


def error_rates(model: Embedder, protocol: Protocol) -> dict[str, float | None]:
    """Return the equal error rates of a model on trials, as fractions.

    Raises:
        SasvError: a recording cannot be embedded.
    """
    assert protocol.enrolments is not None and protocol.trials is not None
    utterances = protocol.utterances
    vectors = np.stack([model.embed(path) for path in utterances.paths])
    scores = score_embeddings(vectors, utterances.ids, protocol.enrolments, protocol.trials)
    found = sasv_eers(scores, protocol.trials.labels)
    return {name: found[name] for name in RATES}
