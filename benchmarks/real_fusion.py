"""Calibration and fusion on real scores: ECAPA-TDNN and AASIST on ASVspoof2019 LA dev, fitted on
half of the speakers.

The claimed speakers are divided into two halves with a seed. Each fusion is fitted on one half and
measured on the other, and vice versa. Reads the scores and the protocol from the folder ``shared``
next to the checkout. Writes a Markdown table, and with ``--report FOLDER`` a report on both test
halves together.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from sasv.calibration import fit_backend
from sasv.commands import ReportOptions, report
from sasv.metrics import COST_MODELS, Measure, intervals, paired_test
from sasv.report.text import show, title
from sasv.scores import read_scores
from sasv.tables import Scores, Table

SHARED = Path(__file__).resolve().parents[2] / "shared"
SCORES = SHARED / "scores" / "asvspoof2019_la_dev_ecapa_aasist.csv.gz"
KEY = SHARED / "protocols" / "asvspoof2019_la" / "ASVspoof2019.LA.asv.dev.gi.trl.txt.gz"
SYSTEMS = {
    "ECAPA-TDNN": ("none", ("asv_score",)),
    "AASIST": ("none", ("cm_score",)),
    "sum": ("sum", ("asv_score", "cm_score")),
    "ECAPA-TDNN calibrated": ("logistic", ("asv_score",)),
    "AASIST calibrated": ("logistic", ("cm_score",)),
    "logistic fusion": ("logistic", ("asv_score", "cm_score")),
    "non-linear fusion": ("nonlinear", ("asv_score", "cm_score")),
}
SHOWN = (
    "sasv_eer",
    "sv_eer",
    "spf_eer",
    "min_a_dcf.asvspoof5",
    "act_a_dcf.asvspoof5",
    "cllr",
    "min_cllr",
)
REPEATS = 1000


def crossed(scores: Scores, kind: str, columns: tuple[str, ...], halves: np.ndarray) -> np.ndarray:
    """Return the score of each trial from the fusion that was fitted on the half without its
    claimed speaker.
    """
    values = {name: scores.table.numbers(name) for name in columns}
    if kind == "none":
        return values[columns[0]]
    result = np.empty(len(scores))
    for half in (0, 1):
        fit, test = halves != half, halves == half
        backend = fit_backend(
            {name: column[fit] for name, column in values.items()},
            scores.labels[fit],
            COST_MODELS["asvspoof5"],
            kind,
        )
        result[test] = backend({name: column[test] for name, column in values.items()})
    return result


def main() -> None:
    """Print the table and the paired tests."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", default="")
    options = parser.parse_args()
    scores = read_scores(SCORES, KEY, "asv_score")
    speakers, names = scores.speakers
    halves = np.random.default_rng(options.seed).permutation(len(names))[speakers] % 2
    counts = [np.bincount(scores.labels[halves == half], minlength=3).tolist() for half in (0, 1)]
    print(
        f"{len(names)} claimed speakers; target, nontarget, spoof of the halves: {counts[0]}, "
        f"{counts[1]}\n"
    )
    measures = {}
    for name, (kind, columns) in SYSTEMS.items():
        llr = kind in ("logistic", "nonlinear")
        measures[name] = Measure(crossed(scores, kind, columns, halves), scores.labels, llr=llr)
    print(f"| system | {' | '.join(map(title, SHOWN))} |")
    print(f"|---|{'---:|' * len(SHOWN)}")
    for name, measure in measures.items():
        whole, spans = measure(), intervals(measure, speakers, REPEATS, seed=options.seed)
        cells = []
        for metric in SHOWN:
            span = spans.get(metric)
            shown = (
                f" [{show(metric, span[0]).rstrip('%')}, {show(metric, span[1]).rstrip('%')}]"
                if span
                else ""
            )
            cells.append(show(metric, whole.get(metric)) + shown)
        print(f"| {name} | {' | '.join(cells)} |")
    print()
    for first, second in (
        ("sum", "logistic fusion"),
        ("sum", "non-linear fusion"),
        ("logistic fusion", "non-linear fusion"),
    ):
        for unit, groups in (("speakers", speakers), ("trials", None)):
            found = paired_test(
                measures[first], measures[second], groups, REPEATS, seed=options.seed
            )
            for metric in ("sasv_eer", "min_a_dcf.asvspoof5"):
                test = found[metric]
                low, high = (show(metric, edge) for edge in test.interval)
                change = show(metric, test.second - test.first)
                what = f"{second} minus {first}, {title(metric)}, over {unit}"
                print(f"* {what}: {change} [{low}, {high}], p = {test.p:.3f}")
    if options.report:
        with tempfile.TemporaryDirectory() as folder:
            systems = []
            for name in ("ECAPA-TDNN", "AASIST", "sum", "non-linear fusion"):
                cells = {
                    column: scores.table.texts(column)
                    for column in ("speaker", "utterance", "label", "attack")
                }
                cells["score"] = [f"{value:.9g}" for value in measures[name].scores]
                path = Path(folder) / f"{name}.tsv"
                Table.build(cells, str(path)).save(path)
                systems.append(f"{name}={path}")
            report(
                ReportOptions(
                    systems, options.report, title="ASVspoof2019 LA dev: fusions", worst=5
                )
            )


if __name__ == "__main__":
    main()
