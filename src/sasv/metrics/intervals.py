"""Confidence intervals by resampling enrolled speakers (their trials move together)."""

import numpy as np

from sasv.core.errors import SasvError
from sasv.metrics.eer import sasv_eers

NAMES = ("sasv_eer", "sv_eer", "spf_eer")


def speaker_intervals(
    scores: np.ndarray,
    labels: np.ndarray,
    speakers: np.ndarray,
    repeats: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, tuple[float, float] | None]:
    """Return the percentile bootstrap interval of each EER in percent.

    Args:
        scores, labels: as in sasv_eers.
        speakers: (trials,) index of the claimed speaker, resampled with replacement.
        repeats: bootstrap samples.
        level: share of samples inside.
        seed: of the resampling.
    """
    groups = [np.flatnonzero(speakers == speaker) for speaker in np.unique(speakers)]
    rng = np.random.default_rng(seed)
    found: dict[str, list[float]] = {name: [] for name in NAMES}
    for _ in range(repeats):
        rows = np.concatenate([groups[pick] for pick in rng.integers(len(groups), size=len(groups))])
        try:
            sample = sasv_eers(scores[rows], labels[rows])
        except SasvError:  # a sample without a target
            continue
        for name in NAMES:
            value = sample[name]
            if value is not None:
                found[name].append(value)
    edges = [50 * (1 - level), 50 * (1 + level)]
    return {
        name: tuple(np.percentile(values, edges).tolist()) if len(values) > repeats // 2 else None
        for name, values in found.items()
    }
