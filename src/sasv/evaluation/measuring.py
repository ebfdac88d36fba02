"""Metrics of a score file for all trials and for groups of trials, with confidence intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sasv.core.errors import SasvError
from sasv.evaluation.outcomes import OUTCOME, measure_outcomes
from sasv.metrics import AsvRates, CostModel, Measure, intervals
from sasv.metrics.curve import NONTARGET, SPOOF, TARGET
from sasv.metrics.summary import thresholds
from sasv.tables import NONE, Scores, Utterances

RESAMPLED = ("speakers", "trials")

GROUP_REPEATS = 300
"""Maximum number of bootstrap samples for the intervals of each group."""

COUNTS = ("targets", "nontargets", "spoofs")
"""Names of the numbers of trials, in the order of the labels."""


@dataclass(frozen=True)
class MeasureSettings:
    """Which metrics are computed from scores, and how.

    Attributes:
        task: sasv, cm (bona fide against spoofed), or auto, which is cm if the labels include
            bonafide.
        costs: cost models; empty uses the default ones.
        llr: whether the scores are log-likelihood ratios; if so, actual costs and Cllr are also
            computed.
        threshold: threshold of the actual costs.
        asv_errors: error rates of the verification system in the t-DCF; None computes them from the
            scores.
        by: columns for each of whose values the metrics are computed separately.
        utterances: utterance table with such columns, if the scores lack them.
        repeats: number of bootstrap samples for 95 % intervals; 0 computes no intervals.
        resample: one of RESAMPLED: the claimed speakers, each with all its trials, or single
            trials.
        seed: seed of the bootstrap.
    """

    task: str = "auto"
    costs: Sequence[CostModel] = ()
    llr: bool = False
    threshold: float | None = None
    asv_errors: AsvRates | None = None
    by: Sequence[str] = ("attack",)
    utterances: Utterances | None = None
    repeats: int = 0
    resample: str = "speakers"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resample not in RESAMPLED:
            raise SasvError(f"'{self.resample}' cannot be resampled; use speakers or trials")
        if self.repeats < 0:
            raise SasvError(
                f"the number of bootstrap samples is {self.repeats}; give 0 for no intervals, or a "
                "positive number"
            )
        if self.threshold is not None and not np.isfinite(self.threshold):
            raise SasvError(f"the threshold is {self.threshold}; give a finite number")


def measure_of(
    scores: Scores, settings: MeasureSettings, rows: np.ndarray | None = None
) -> Measure:
    """Return the measure for scores.

    Args:
        scores: the scores.
        settings: the metrics to compute.
        rows: (trials,) rows of the scores to use, in this order; None uses all.
    """

    def chosen(values: np.ndarray | None) -> np.ndarray | None:
        return values if rows is None or values is None else values[rows]

    return Measure(
        scores.values if rows is None else scores.values[rows],
        scores.labels if rows is None else scores.labels[rows],
        scores.task if settings.task == "auto" else settings.task,
        settings.costs,
        settings.llr,
        settings.threshold,
        chosen(scores.numbers("asv_score")),
        chosen(scores.numbers("cm_score")),
        settings.asv_errors,
    )


def metrics_of(scores: Scores, settings: MeasureSettings) -> dict[str, Any]:
    """Return the metrics (see Measure), thresholds, counts, and, if requested, groups and
    intervals.
    """
    scores.check_unique()
    measure = measure_of(scores, settings)
    curve = measure.points.curve()
    result: dict[str, Any] = measure() | thresholds(curve, measure.task)
    if measure.task == "cm":
        result |= {"bonafide": round(curve.sizes[TARGET]), "spoofs": round(curve.sizes[SPOOF])}
    else:
        result |= dict(zip(COUNTS, map(round, curve.sizes)))
    result["task"] = measure.task
    result["costs"] = {model.name: model.describe() for model in measure.models}
    if OUTCOME in scores.table.columns and measure.task == "sasv":
        verdicts = scores.table.texts(OUTCOME)
        result["outcomes"] = measure_outcomes(verdicts, measure.labels, measure.models)
    result["groups"] = {}
    for column in settings.by:
        found = groups_of(scores, measure, column, settings)
        if found:
            result["groups"][column] = found
    if settings.repeats:
        speakers = resampled_speakers(scores, settings.resample)
        result["intervals"] = intervals(measure, speakers, settings.repeats, seed=settings.seed)
    return result


def groups_of(
    scores: Scores, measure: Measure, column: str, settings: MeasureSettings
) -> dict[str, dict[str, Any]]:
    """Return the EERs and the first cost for the trials of each value of a column.

    The spoofs of each attack are compared with all bona fide trials. For other columns, each value
    has its own trials.
    """
    codes, names = column_of(scores, column, settings.utterances)
    spoofed = measure.labels == SPOOF
    result: dict[str, dict[str, Any]] = {}
    for index in sorted(range(len(names)), key=lambda index: names[index]):
        mine = codes == index
        if column == "attack":
            if names[index] == NONE or not (mine & spoofed).any():
                continue
            mine = (mine & spoofed) | ~spoofed
        if not (measure.labels[mine] == TARGET).any():
            continue
        part = Measure(
            measure.scores[mine],
            measure.labels[mine],
            measure.task,
            measure.costs,
            measure.llr,
            measure.threshold,
            brief=True,
        )
        result[names[index]] = part() | counts_of(part.labels)
        if settings.repeats:
            speakers = resampled_speakers(scores, settings.resample)
            mine_speakers = None if speakers is None else speakers[mine]
            repeats = min(settings.repeats, GROUP_REPEATS)
            result[names[index]]["intervals"] = intervals(
                part, mine_speakers, repeats, seed=settings.seed
            )
    return result


def counts_of(labels: np.ndarray) -> dict[str, int]:
    """Return the number of trials of each class, by name."""
    sizes = np.bincount(labels, minlength=3)
    return {name: int(sizes[kind]) for name, kind in zip(COUNTS, (TARGET, NONTARGET, SPOOF))}


def column_of(
    scores: Scores, column: str, utterances: Utterances | None = None
) -> tuple[np.ndarray, list[str]]:
    """Return a code for each trial, (trials,), and the values of a column, which is one of the
    scores or, for the test utterances, one of an utterance table.
    """
    if column == "attack":
        return scores.attacks
    if column in scores.table.columns:
        return scores.table.codes(column)
    if utterances is None:
        raise SasvError(
            f"{scores.table.name}: there is no column '{column}'; give the utterance table that "
            "has it (--utterances)"
        )
    utterances.table.require(column)
    values = dict(zip(utterances.ids, utterances.table.texts(column)))
    cells = [values.get(name, NONE) for name in scores.utterances[1]]
    names = sorted(set(cells))
    rank = {name: index for index, name in enumerate(names)}
    return np.array([rank[cell] for cell in cells])[scores.utterances[0]], names


def resampled_speakers(scores: Scores, resample: str) -> np.ndarray | None:
    """Return the index of the claimed speaker of each trial, (trials,), or None if trials are
    resampled.
    """
    codes, names = scores.speakers
    return codes if resample == "speakers" and len(names) > 1 else None
