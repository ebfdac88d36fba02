"""All metrics at 10^5, 10^6, and 10^7 trials on one core: time, peak memory, and growth; the
bootstrap at 10^5.

Each size runs in a separate process, so that its peak memory can be measured.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import argparse  # noqa: E402
import resource  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
from collections.abc import Sequence  # noqa: E402

import numpy as np  # noqa: E402

from common import header, measure, row  # noqa: E402
from sasv.metrics import COST_MODELS, Measure, Points, asv_rates, cllr, intervals, min_t_dcf, t_eer  # noqa: E402
from sasv.metrics.summary import bona_fide_as_target  # noqa: E402

MODEL = COST_MODELS["asvspoof5"]


def drawn(trials: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels in the proportions of the ASVspoof2019 LA evaluation, and scores of a
    verification system and of a countermeasure.
    """
    rng = np.random.default_rng(0)
    labels = rng.choice(3, trials, p=[0.05, 0.33, 0.62]).astype(np.int8)
    return (
        labels,
        rng.standard_normal(trials) + 3 * (labels == 0),
        rng.standard_normal(trials) + 2 * (labels != 2),
    )


def peak() -> str:
    """Return the peak memory of this process so far, as text."""
    return f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB"


def one_size(trials: int) -> None:
    """Measure all metrics at one size."""
    labels, scores, countermeasure = drawn(trials)
    repeats = 5 if trials < 10**6 else 3
    header(f"{trials:,} trials, one core")
    sort = measure(lambda: np.sort(scores), repeats)
    row("np.sort of the scores (baseline)", sort)

    def eers_and_costs() -> None:
        curve = Points(scores, labels).curve()
        for kinds in ((1, 2), (1,), (2,)):
            curve.eer(*kinds), curve.eer_nearest(*kinds)
        MODEL.minimum(curve), MODEL.actual(curve, 1.0)

    row(
        "all EERs, min and actual a-DCF, from scores",
        measure(eers_and_costs, repeats),
        sort,
        peak(),
    )
    curve = Points(scores, labels).curve()
    row("Cllr", measure(lambda: cllr(scores, labels == 0), repeats), sort)
    row(
        "min Cllr",
        measure(lambda: Measure(scores, labels)()["min_cllr"], 1),
        sort,
        "with all EERs and costs",
    )
    cm = Points(countermeasure, bona_fide_as_target(labels)).curve()
    row("min t-DCF", measure(lambda: min_t_dcf(cm, asv_rates(curve), MODEL), repeats), sort)
    row(
        "t-EER, exact",
        measure(lambda: t_eer(curve, cm), repeats if trials < 10**7 else 1),
        sort,
        peak(),
    )
    if trials == 10**5:
        speakers = np.random.default_rng(1).integers(0, 60, trials)
        whole = Measure(scores, labels, llr=True)
        for name, groups in (("speakers", speakers), ("trials", None)):
            took = measure(lambda: intervals(whole, groups, 1000), 1)  # noqa: B023
            row(f"1,000 resamples of {name}, all metrics", took, sort)
        tandem = Measure(scores, labels, llr=True, asv=scores, cm=countermeasure)
        row(
            "the same of speakers, with t-DCF and t-EER",
            measure(lambda: intervals(tandem, speakers, 1000), 1),
            sort,
        )


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trials", nargs="?", type=int, help="one size, in this process")
    parser.add_argument("--quick", action="store_true", help="the smallest size, for a test")
    options = parser.parse_args(words)
    if options.trials or options.quick:
        one_size(options.trials or 1000)
        return
    for size in (10**5, 10**6, 10**7):
        subprocess.run([sys.executable, __file__, str(size)], check=True)


if __name__ == "__main__":
    main()
