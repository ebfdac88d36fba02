"""sasv metrics."""

import json
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from sasv.core.errors import SasvError
from sasv.core.options import Count, Options, Range, Seed
from sasv.metrics import ASVSPOOF5_ASV, AsvRates, Measure, cost_model, intervals, paired_test
from sasv.metrics.summary import thresholds
from sasv.report.text import format_differences, format_metrics
from sasv.scores import read_scores
from sasv.tables import NONE, Scores, load_utterances


@dataclass
class MetricsOptions(Options):
    """Metrics of a score file: ours, or that of a challenge or another toolkit (docs/metrics.md lists them).

    Args:
        scores: score file.
        key: trials with labels, where the score file has none.
        cm: score file of a countermeasure beside that of a speaker system: t-DCF and t-EER.
        column: which score is meant where the file holds several.
        task: sasv, cm (bona fide against spoofed), or auto: cm where the labels say bonafide.
        by: columns whose values are measured apart, separated by commas.
        utterances: utterance table that has such a column (codec, gender) where the score file has not.
        costs: cost model by name, or six numbers; empty takes the usual ones.
        llr: the scores are log-likelihood ratios: actual costs and Cllr as well.
        threshold: actual costs at this threshold.
        asv_errors: of the t-DCF: own (from the scores), asvspoof5 (its organisers' system), or miss,nontarget,spoof.
        against: score file of another system on the same trials: paired test of every metric.
        intervals: bootstrap samples for 95 % intervals; 0 for none.
        resample: speakers (the claimed ones; their trials move together) or trials.
        seed: of the bootstrap.
        json: print JSON.
    """

    scores: str
    key: str = ""
    cm: str = ""
    column: str = ""
    task: str = "auto"
    by: str = "attack"
    utterances: str = ""
    costs: str = ""
    llr: bool = False
    threshold: Annotated[float | None, Range()] = None
    asv_errors: str = "own"
    against: str = ""
    intervals: Count = 0
    resample: str = "speakers"
    seed: Seed = 0
    json: bool = False


def measure_of(scores: Scores, options: MetricsOptions | None = None) -> Measure:
    """Return what is measured of a score file."""
    options = options or MetricsOptions("")
    costs = [cost_model(options.costs)] if options.costs else []
    return Measure(
        scores.values,
        scores.labels,
        scores.task if options.task == "auto" else options.task,
        costs,
        options.llr,
        options.threshold,
        scores.numbers("asv_score"),
        scores.numbers("cm_score"),
        asv_errors(options.asv_errors),
    )


def asv_errors(text: str) -> AsvRates | None:
    """Return error rates of a verification system: None for ``own``, by name, or of three numbers."""
    if text in ("own", "asvspoof5"):
        return None if text == "own" else ASVSPOOF5_ASV
    try:
        rates = AsvRates(*map(float, text.split(",")))
    except (TypeError, ValueError):
        rates = AsvRates(-1, -1, -1)
    if min(rates) < 0 or max(rates) > 1:
        raise SasvError(f"'{text}' are no ASV error rates: own, asvspoof5, or three fractions miss,nontarget,spoof")
    return rates


def metrics_of(scores: Scores, options: MetricsOptions | None = None) -> dict[str, Any]:
    """Return the metrics (see Measure), thresholds, counts, groups, and intervals where wanted."""
    options = options or MetricsOptions("")
    scores.check_unique()
    measure = measure_of(scores, options)
    curve = measure.points.curve()
    result: dict[str, Any] = measure() | thresholds(curve, measure.task)
    if measure.task == "cm":
        result |= {"bonafide": round(curve.sizes[0]), "spoofs": round(curve.sizes[2])}
    else:
        result |= dict(zip(("targets", "nontargets", "spoofs"), map(round, curve.sizes)))
    result["task"] = measure.task
    result["costs"] = {model.name: model.describe() for model in measure.models}
    result["groups"] = {}
    for column in filter(None, options.by.split(",")):
        found = groups_of(scores, measure, column, options)
        if found:
            result["groups"][column] = found
    if options.intervals:
        result["intervals"] = intervals(
            measure, resampled_speakers(scores, options.resample), options.intervals, seed=options.seed
        )
    return result


def groups_of(scores: Scores, measure: Measure, column: str, options: MetricsOptions) -> dict[str, dict[str, Any]]:
    """Return the EERs and the first cost of the trials of each value of a column.

    Spoofs of each attack are set against all bona fide trials; of other columns each value has its own trials.
    """
    codes, names = column_of(scores, column, options.utterances)
    spoofed = measure.labels == 2
    result: dict[str, dict[str, Any]] = {}
    for index in sorted(range(len(names)), key=lambda index: names[index]):
        mine = codes == index
        if column == "attack":
            if names[index] == NONE or not (mine & spoofed).any():
                continue
            mine = (mine & spoofed) | ~spoofed
        if not (measure.labels[mine] == 0).any():
            continue
        part = Measure(
            measure.scores[mine], measure.labels[mine], measure.task, measure.costs, measure.llr, measure.threshold,
            brief=True,
        )  # fmt: skip
        counts = np.bincount(part.labels, minlength=3).tolist()
        result[names[index]] = part() | dict(zip(("targets", "nontargets", "spoofs"), counts))
        if options.intervals:
            speakers = resampled_speakers(scores, options.resample)
            mine_speakers = None if speakers is None else speakers[mine]
            found = intervals(part, mine_speakers, min(options.intervals, 300), seed=options.seed)
            result[names[index]]["intervals"] = found
    return result


def column_of(scores: Scores, column: str, utterances: str = "") -> tuple[np.ndarray, list[str]]:
    """Return (code per trial, values) of a column of the scores, or of the tested utterances in an utterance table."""
    if column == "attack":
        return scores.attacks
    if column in scores.table.columns:
        return scores.table.codes(column)
    if not utterances:
        raise SasvError(
            f"{scores.table.name}: no column '{column}'; give the utterance table that has it (--utterances)"
        )
    table = load_utterances(utterances)
    table.table.require(column)
    values = dict(zip(table.ids, table.table.texts(column)))
    cells = [values.get(name, NONE) for name in scores.utterances[1]]
    names = sorted(set(cells))
    rank = {name: index for index, name in enumerate(names)}
    return np.array([rank[cell] for cell in cells])[scores.utterances[0]], names


def resampled_speakers(scores: Scores, resample: str) -> np.ndarray | None:
    """Return the claimed speaker of each trial, or None where trials are resampled."""
    if resample not in ("speakers", "trials"):
        raise SasvError(f"'{resample}' cannot be resampled; use speakers or trials")
    codes, names = scores.speakers
    return codes if resample == "speakers" and len(names) > 1 else None


def metrics(options: MetricsOptions) -> dict[str, Any]:
    """Print and return the metrics of a score file."""
    scores = read_scores(options.scores, options.key, options.column, options.cm)
    result = metrics_of(scores, options)
    if options.against:
        other = read_scores(options.against, options.key, options.column)
        result["against"] = compare(scores, other, options)
    print(json.dumps(result, indent=1) if options.json else format_metrics(result))
    if options.against and not options.json:
        print(format_differences(result["against"], options.scores, options.against, options.resample))
    return result


def compare(first: Scores, second: Scores, options: MetricsOptions) -> dict[str, Any]:
    """Return the paired test of two systems: metric -> first, second, interval of second - first, p-value."""
    columns = ("speaker", "utterance", "label")
    if len(first) != len(second) or any(first.table.texts(name) != second.table.texts(name) for name in columns):
        raise SasvError(
            f"{second.table.name}: not the trials of {first.table.name} in their order; score both on one table"
        )
    speakers = resampled_speakers(first, options.resample)
    one, other = measure_of(first, options), measure_of(second, options)
    found = paired_test(one, other, speakers, options.intervals or 1000, seed=options.seed)
    return {name: difference._asdict() for name, difference in found.items()}
