"""How often a spoof axis mistakes the speech of a corpus that its fit does not know:
left_out.py STATISTICS.npz [--ridge 0.02] [--offsets -0.5 -1].

STATISTICS.npz is what ``spoof_axis.py --statistics`` wrote. The classifier is fitted to all corpora
but one, for each, and for each kind of crop of that one the percentage beyond the offset is
printed, and the mean over the corpora: false alarms for bona fide speech, and detections for
copies. Development trials do not show this, because their corpora are among those of the fit.
"""

import argparse

import numpy as np

from spoof_axis import AXIS_OFFSET, RIDGE, fit


def main() -> None:
    """Print a table for each offset."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("statistics")
    parser.add_argument("--ridge", type=float, default=RIDGE)
    parser.add_argument("--offsets", type=float, nargs="+", default=[AXIS_OFFSET])
    options = parser.parse_args()
    with np.load(options.statistics) as found:
        inputs = found["inputs"].astype(np.float64)
        kinds, spoofed, corpora = found["kinds"], found["spoofed"], found["corpora"]
    names = np.unique(corpora).tolist()
    scores = np.empty(len(inputs))
    for name in names:
        left = corpora == name
        weight, bias = fit(inputs[~left], kinds[~left], spoofed[~left], options.ridge)
        scores[left] = inputs[left] @ weight + bias
    for offset in options.offsets:
        print(f"percentage of crops beyond {offset:g}: mean, " + ", ".join(names))
        for copies, title in ((False, "bona fide"), (True, "copies")):
            for kind in dict.fromkeys(kinds[spoofed == copies].tolist()):
                shares = [
                    100 * np.mean(scores[rows] < offset) if rows.any() else np.nan
                    for rows in ((kinds == kind) & (corpora == name) for name in names)
                ]
                shown = ", ".join(f"{share:.0f}" for share in shares)
                print(f"  {title}, {kind}: {np.nanmean(shares):.1f}, {shown}")


if __name__ == "__main__":
    main()
