"""sasv metrics."""

from dataclasses import dataclass
from typing import Annotated, Any

from sasv.core.errors import SasvError
from sasv.core.options import Count, Options, Range, Seed
from sasv.evaluation import MeasureSettings, compare, metrics_of
from sasv.metrics import ASVSPOOF5_ASV, AsvRates, cost_model
from sasv.scores import read_scores
from sasv.tables import load_utterances


@dataclass
class MetricsOptions(Options):
    """Metrics of a score file: ours, or that of a challenge or another toolkit (docs/metrics.md
    lists them).

    Args:
        scores: score file.
        key: trials with labels, where the score file has none.
        cm: score file of a countermeasure beside that of a speaker system: t-DCF and t-EER.
        column: which score is meant where the file holds several.
        where: measure only the trials with this ``column=value``; empty takes the subset eval of a
            key with several subsets (ASVspoof 2021), and all trials elsewhere.
        columns: names of the columns of a score file whose layout is unknown, separated by commas,
            ``-`` for one that is not read: speaker,utterance,label,score.
        labels: meaning of labels that are numbers or unknown words: 0=spoof,1=bonafide.
        task: sasv, cm (bona fide against spoofed), or auto: cm where the labels say bonafide.
        by: columns whose values are measured apart, separated by commas.
        utterances: utterance table that has such a column (codec, gender) where the score file has
            not.
        costs: cost model by name, or six numbers; empty takes the usual ones.
        llr: the scores are log-likelihood ratios: actual costs and Cllr as well.
        threshold: actual costs at this threshold.
        asv_errors: of the t-DCF: own (from the scores), asvspoof5 (its organisers' system), or
            miss,nontarget,spoof.
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
    where: str = ""
    columns: str = ""
    labels: str = ""
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


def settings_of(options: MetricsOptions) -> MeasureSettings:
    """Return what is measured, of the options."""
    return MeasureSettings(
        task=options.task,
        costs=[cost_model(options.costs)] if options.costs else [],
        llr=options.llr,
        threshold=options.threshold,
        asv_errors=asv_errors(options.asv_errors),
        by=split_names(options.by),
        utterances=load_utterances(options.utterances) if options.utterances else None,
        repeats=options.intervals,
        resample=options.resample,
        seed=options.seed,
    )


def split_names(text: str) -> list[str]:
    """Return the names in a text that separates them by commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def asv_errors(text: str) -> AsvRates | None:
    """Return error rates of a verification system: None for ``own``, by name, or of three
    numbers.
    """
    if text in ("own", "asvspoof5"):
        return None if text == "own" else ASVSPOOF5_ASV
    try:
        rates = AsvRates(*map(float, text.split(",")))
    except (TypeError, ValueError):
        rates = AsvRates(-1, -1, -1)
    if min(rates) < 0 or max(rates) > 1:
        raise SasvError(
            f"'{text}' are no ASV error rates: own, asvspoof5, or three fractions "
            "miss,nontarget,spoof"
        )
    return rates


def metrics(options: MetricsOptions) -> dict[str, Any]:
    """Return the metrics of a score file, and the paired test against another system where one is
    given.
    """
    settings = settings_of(options)
    layout = {"where": options.where, "columns": options.columns, "labels": options.labels}
    scores = read_scores(options.scores, options.key, options.column, options.cm, **layout)
    result = metrics_of(scores, settings)
    if options.against:
        other = read_scores(options.against, options.key, options.column, **layout)
        result["against"] = compare(scores, other, settings)
    return result
