"""sasv metrics."""

from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Literal

from sasv.core.errors import SasvError
from sasv.core.options import BootstrapCount, Options, Range, Seed
from sasv.evaluation import MeasureSettings, compare, metrics_of
from sasv.metrics import ASVSPOOF5_ASV, AsvRates, cost_model
from sasv.scores import read_scores
from sasv.tables import load_utterances


@dataclass
class MetricsOptions(Options):
    """Compute the metrics of a score file of sasv, of a challenge, or of another toolkit
    (docs/metrics.md lists the layouts); with ``against``, compare two systems.

    Args:
        scores: score file.
        key: trial list with labels, if the score file has none.
        cm: score file of a countermeasure, for the t-DCF and the t-EER of the tandem.
        column: score column to use, if the file has several.
        where: use only the trials with this ``column=value``; by default the subset eval of a key
            with several subsets (ASVspoof 2021), and otherwise all trials.
        columns: names of the columns of a score file with an unknown layout
            (speaker,utterance,label,score), with ``-`` for a column to skip.
        labels: meaning of labels that are numbers or unknown words (0=spoof,1=bonafide).
        task: sasv, cm (bona fide against spoofed), or auto, which is cm if the labels include
            bonafide.
        by: columns (attack,codec) for each of whose values the metrics are computed separately.
        utterances: utterance table with these columns, if the score file lacks them.
        costs: name of a cost model, or six numbers; by default several common models.
        llr: treat the scores as log-likelihood ratios, and compute actual costs and Cllr as well.
        threshold: threshold at which to compute actual costs.
        asv_errors: error rates of the speaker verification system in the t-DCF: own (from the
            scores), asvspoof5 (the organisers' system), or three fractions miss,nontarget,spoof.
        against: score file of another system on the same trials, for a paired test of every metric.
        intervals: number of bootstrap samples for 95 % intervals; 0 computes none.
        resample: what the bootstrap draws: claimed speakers, each with all its trials, or single
            trials.
        seed: random seed of the bootstrap.
        json: print JSON.
    """

    scores: str
    key: str = ""
    cm: str = ""
    column: str = ""
    where: str = ""
    columns: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    task: Literal["auto", "sasv", "cm"] = "auto"
    by: list[str] = field(default_factory=lambda: ["attack"])
    utterances: str = ""
    costs: str = ""
    llr: bool = False
    threshold: Annotated[float | None, Range()] = None
    asv_errors: str = "own"
    against: str = ""
    intervals: BootstrapCount = 0
    resample: Literal["speakers", "trials"] = "speakers"
    seed: Seed = 0
    json: bool = False


def settings_of(options: MetricsOptions) -> MeasureSettings:
    """Return the settings that the options describe."""
    return MeasureSettings(
        task=options.task,
        costs=[cost_model(options.costs)] if options.costs else [],
        llr=options.llr,
        threshold=options.threshold,
        asv_errors=asv_errors(options.asv_errors),
        by=options.by,
        utterances=load_utterances(options.utterances) if options.utterances else None,
        repeats=options.intervals,
        resample=options.resample,
        seed=options.seed,
    )


def asv_errors(text: str) -> AsvRates | None:
    """Return the error rates of a verification system, given by name or as three numbers; None for
    ``own``.
    """
    if text in ("own", "asvspoof5"):
        return None if text == "own" else ASVSPOOF5_ASV
    try:
        rates = AsvRates(*map(float, text.split(",")))
    except (TypeError, ValueError):
        rates = AsvRates(-1, -1, -1)
    if min(rates) < 0 or max(rates) > 1:
        raise SasvError(
            f"--asv-errors '{text}' is not valid; use own, asvspoof5, or three fractions "
            "miss,nontarget,spoof"
        )
    return rates


def metrics(options: MetricsOptions) -> dict[str, Any]:
    """Return the metrics of a score file, and the paired test against another system if one is
    given.
    """
    settings = settings_of(options)
    read = partial(
        read_scores,
        key=options.key,
        column=options.column,
        where=options.where,
        columns=options.columns,
        labels=options.labels,
    )
    scores = read(options.scores, cm=options.cm)
    result = metrics_of(scores, settings)
    if options.against:
        other = read(options.against)
        result["against"] = compare(scores, other, settings)
    return result
