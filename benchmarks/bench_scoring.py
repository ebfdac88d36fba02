"""Scoring and EERs on one core: the size of the ASVspoof2019 LA evaluation, 10^5 and 10^7
trials.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import resource  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from functools import partial  # noqa: E402

import numpy as np  # noqa: E402

from common import header, is_quick, measure, row  # noqa: E402
from sasv.metrics import sasv_eers  # noqa: E402
from sasv.scores import score_trials  # noqa: E402


def one_by_one(
    left: np.ndarray, right: np.ndarray, enrolment: np.ndarray, utterance: np.ndarray
) -> list[float]:
    """A loop over trials, as in usual scoring scripts."""
    return [
        float(np.dot(left[e], right[u]) / (np.linalg.norm(left[e]) * np.linalg.norm(right[u])))
        for e, u in zip(enrolment, utterance)
    ]


CASES = [
    ("10^5 trials", 10**5, 1000, 10_000),
    ("LA evaluation: 102,579 trials", 102_579, 48, 71_237),
    ("10^7 trials", 10**7, 5000, 50_000),
]


def main(words: Sequence[str] | None = None) -> None:
    cases = [("1,000 trials", 1000, 10, 100)] if is_quick(words, __doc__) else CASES
    rng = np.random.default_rng(0)
    for name, trials, speakers, utterances in cases:
        left = rng.standard_normal((speakers, 192)).astype(np.float32)
        right = rng.standard_normal((utterances, 192)).astype(np.float32)
        enrolment, utterance = (
            rng.integers(0, speakers, trials),
            rng.integers(0, utterances, trials),
        )
        labels = rng.choice(3, trials, p=[0.05, 0.33, 0.62]).astype(np.int8)
        repeats = 5 if trials < 10**6 else 3
        header(f"{name}, {speakers} speakers, {utterances} utterances, one core")
        some = min(trials, 20_000)
        part = (left, right, enrolment[:some], utterance[:some])
        loop = measure(partial(one_by_one, *part), 3) * trials / some
        row(f"loop over trials, from {some:,} (baseline)", loop)
        took = measure(lambda: score_trials(left, right, enrolment, utterance), repeats)  # noqa: B023
        row("score", took, loop)
        scores = score_trials(left, right, enrolment, utterance).astype(np.float64) + 0.15 * (
            labels == 0
        )
        row("SASV-, SV- and SPF-EER", measure(lambda: sasv_eers(scores, labels), repeats))  # noqa: B023
        print(
            f"  peak memory so far {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} "
            "GB"
        )


if __name__ == "__main__":
    main()
