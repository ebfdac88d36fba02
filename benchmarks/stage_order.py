"""Does each stage lower the SASV-EER? The tiny table on real speech, several seeds: mean, spread,
and the check.

    python benchmarks/stage_order.py SPEECH OUT --seeds 0 1 2

SPEECH is a folder for ``sasv reproduce --scale tiny --corpus`` (shared/speech). Finished steps are
skipped. Prints a table in Markdown; the order holds if every stage of the rows 2, 6, 7 lowers the
SASV-EER, for each seed.
"""

import argparse
from itertools import pairwise
from statistics import mean, stdev

from sasv.commands._demo import SHOWN
from sasv.commands._reproduce import ReproduceOptions, reproduce

METRICS = {
    "sasv_eer": "SASV-EER",
    "sv_eer": "SV-EER",
    "spf_eer": "SPF-EER",
    "min_a_dcf.asvspoof5": "min a-DCF [asvspoof5]",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("speech")
    parser.add_argument("out")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--rows", type=int, nargs="+", default=list(SHOWN))
    options = parser.parse_args()
    found = {}
    for seed in options.seeds:
        cells = reproduce(
            ReproduceOptions(
                rows=options.rows,
                encoder=["ecapa-tdnn"],
                train_set=["train"],
                scale="tiny",
                corpus=options.speech,
                out=f"{options.out}/seed{seed}",
                epochs=options.epochs,
                seed=seed,
            )
        )
        for cell in cells:
            found[seed, cell.row] = cell.metrics
    rows = sorted({row for _, row in found})
    print("\n| seed | " + " | ".join(f"{row}: {SHOWN.get(row, '')}" for row in rows) + " |")
    print("|---" * (len(rows) + 1) + "|")
    for seed in options.seeds:
        print(f"| {seed} | " + " | ".join(figure(found[seed, row]) for row in rows) + " |")
    for metric, name in METRICS.items():
        cells = [
            spread(
                [found[seed, row][metric] for seed in options.seeds], 3 if "dcf" in metric else 2
            )
            for row in rows
        ]
        print(f"| {name}, mean (s.d.) | " + " | ".join(cells) + " |")
    ladder = [row for row in (2, 6, 7) if row in rows]
    for seed in options.seeds:
        values = [found[seed, row]["sasv_eer"] for row in ladder]
        verdict = "holds" if all(before > after for before, after in pairwise(values)) else "FAILS"
        print(
            f"seed {seed}: {' -> '.join(f'{value:.2f}' for value in values)}: the order {verdict}"
        )


def figure(metrics: dict) -> str:
    """Return an SASV-EER with its interval."""
    low, high = metrics["intervals"]["sasv_eer"]
    return f"{metrics['sasv_eer']:.2f} [{low:.2f}, {high:.2f}]"


def spread(values: list[float], digits: int) -> str:
    """Return mean and standard deviation over the seeds."""
    return f"{mean(values):.{digits}f}" + (
        f" ({stdev(values):.{digits}f})" if len(values) > 1 else ""
    )


if __name__ == "__main__":
    main()
