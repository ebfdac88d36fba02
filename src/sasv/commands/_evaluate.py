"""sasv evaluate."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sasv.commands._metrics import MetricsOptions, metrics_of
from sasv.core.errors import MissingExtra, SasvError
from sasv.core.files import write_json
from sasv.core.options import Count, NonNegativeFloat, Options, PositiveFloat
from sasv.core.progress import say
from sasv.embeddings.extract import Embeddings, extract, utterance_seconds
from sasv.embeddings.model import Model, load_model
from sasv.parallel.processes import Processes, joined
from sasv.report import format_metrics, plot_scores
from sasv.scores import Cohort, Scoring, score_embeddings
from sasv.scores.quality import quality_measures
from sasv.tables import (
    Enrolments,
    Scores,
    Table,
    Trials,
    Utterances,
    load_enrolments,
    load_trials,
    load_utterances,
    needed_utterances,
    save_scores,
)
from sasv.tables.labels import BONA_FIDE

CARRIED = ("codec", "gender")
"""Columns of the utterance table that go into the score file, for --by."""


@dataclass
class EvaluateOptions(Options):
    """Score a protocol: score file, metrics and plot. Without trials: the model as a countermeasure.

    Args:
        utterances: utterance table.
        out: folder for scores.tsv, metrics.json, scores.png and the embeddings.
        enrolments: enrolment table; empty, with empty trials, scores every utterance as bona fide or spoofed.
        trials: trial table.
        model: checkpoint; may be left out where ``embeddings`` is given.
        embeddings: folder that sasv embed wrote, instead of embedding now.
        where: of a countermeasure: only the utterances with this ``column=value``.
        enrolment: of several recordings: mean (of raw embeddings, as published), normalised (mean of normalised
            ones), scores (mean of the scores against each).
        crops: multi-crop: this many crops an utterance, the score the mean over all pairs; 0 for whole utterances.
        crop_seconds: length of a crop.
        cohort: utterance table of other people for adaptive s-norm.
        cohort_where: only its utterances with this ``column=value``.
        cohort_by: utterance, or speaker (the mean of each speaker's embeddings).
        top: cohort scores that count; 0 takes all.
        quality: write the quality measures log_seconds, log_enrolments and norm into the score file.
        by: columns whose values are measured apart.
        batch_seconds: padded audio per batch; 0 takes 30 on a CPU and 600 on a GPU.
        max_seconds: refuse longer utterances.
        intervals: bootstrap samples over speakers for 95 % intervals; 0 for none.
        plot: write scores.png (needs sasv[plots]).
        device: cpu, cuda, or auto.
    """

    utterances: str
    out: str
    enrolments: str = ""
    trials: str = ""
    model: str = ""
    embeddings: str = ""
    where: str = ""
    enrolment: str = "mean"
    crops: Count = 0
    crop_seconds: PositiveFloat = 4.0
    cohort: str = ""
    cohort_where: str = ""
    cohort_by: str = "utterance"
    top: Count = 300
    quality: bool = False
    by: str = "attack"
    batch_seconds: NonNegativeFloat = 0.0
    max_seconds: PositiveFloat = 300.0
    intervals: Count = 1000
    plot: bool = True
    device: str = "auto"


def evaluate(options: EvaluateOptions) -> dict[str, Any]:
    """Embed, score and measure a protocol; print the metrics and return them.

    Started by torchrun, the processes embed together, the main one does the rest; the others return nothing.
    """
    if not (options.model or options.embeddings):
        raise SasvError("evaluate needs --model, or --embeddings from sasv embed")
    if bool(options.enrolments) != bool(options.trials):
        raise SasvError("trials and enrolments belong together: give both, or neither for a countermeasure")
    if options.where and options.trials:
        raise SasvError("--where chooses utterances of a countermeasure; trials name theirs")
    model = None
    if options.model:
        model = load_model(options.model, options.device)
        model.max_seconds, model.crops, model.crop_seconds = options.max_seconds, options.crops, options.crop_seconds
    protocol = load_protocol(options)
    if model is not None:
        with joined(model.device) as processes:
            embed_together(options, model, protocol.utterances, processes)
            if not processes.main:
                return {}
    scores = claims(options, model, protocol) if options.trials else countermeasure(options, model, protocol.utterances)
    result = metrics_of(scores, MetricsOptions("", by=options.by, intervals=options.intervals))
    out = Path(options.out)
    write_json(out / "metrics.json", result)
    print(format_metrics(result))
    if options.plot:
        try:
            plot_scores(scores.values, scores.labels, out / "scores.png", result)
        except MissingExtra as error:
            say(str(error))
    say(f"scores: {out / 'scores.tsv'}")
    return result


class Protocol(NamedTuple):
    """What is scored: the utterances that it needs, and, but for a countermeasure, enrolments and trials."""

    utterances: Utterances
    enrolments: Enrolments | None = None
    trials: Trials | None = None


def load_protocol(options: EvaluateOptions) -> Protocol:
    """Read the tables, each once."""
    if not options.trials:
        return Protocol(load_utterances(options.utterances, options.where))
    enrolments, trials = load_enrolments(options.enrolments), load_trials(options.trials)
    utterances = needed_utterances(load_utterances(options.utterances), enrolments, trials)
    return Protocol(utterances, enrolments, trials)


def embed_together(options: EvaluateOptions, model: Model, tested: Utterances, processes: Processes) -> None:
    """Embed what will be scored, and the cohort, each process its share."""
    if processes.world == 1:
        return
    wanted = []
    if not options.embeddings:
        wanted.append((tested, "embeddings"))
    if options.cohort:
        wanted.append((load_utterances(options.cohort, options.cohort_where), "cohort"))
    for utterances, folder in wanted:
        extract(model, utterances, Path(options.out) / folder, options.batch_seconds)
        processes.wait()


def claims(options: EvaluateOptions, model: Model | None, protocol: Protocol) -> Scores:
    """Score the claims of a trial table; write and return the score file."""
    utterances, enrolments, trials = protocol
    assert enrolments is not None and trials is not None
    embeddings = embedded(options, model, utterances)
    scoring = Scoring(options.enrolment, cohort_of(options, model), options.top, embeddings.crops > 0)
    values = score_embeddings(
        embeddings.vectors, embeddings.utterances, enrolments, trials, list(embeddings.failures), scoring
    )
    codes, names = trials.utterances
    rows = np.array([utterances.rows[name] for name in names])[codes]
    extras = {}
    for column in CARRIED:
        if column in utterances.table.columns and column not in trials.table.columns:
            cells = utterances.table.texts(column)
            extras[column] = [cells[row] for row in rows]
    if options.quality:
        extras |= quality(enrolments, trials, utterances, embeddings, rows)
    return save_scores(Path(options.out) / "scores.tsv", trials, values, extras)


def quality(
    enrolments: Enrolments, trials: Trials, utterances: Utterances, embeddings: Embeddings, rows: np.ndarray
) -> dict[str, list[str]]:
    """Return the quality measures of each trial as cells."""
    codes, speakers = trials.speakers
    sizes = dict(zip(enrolments.speakers, map(len, enrolments.utterances)))
    counts = np.array([sizes[name] for name in speakers])[codes]
    place = {name: row for row, name in enumerate(embeddings.utterances)}
    vectors = embeddings.vectors[[place[name] for name in trials.utterances[1]]][trials.utterances[0]]
    found = quality_measures(utterance_seconds(utterances)[rows], counts, vectors)
    return {name: [f"{value:.6g}" for value in values] for name, values in found.items()}


def countermeasure(options: EvaluateOptions, model: Model | None, utterances: Utterances) -> Scores:
    """Score every utterance as bona fide (high) or spoofed; write and return the score file."""
    if model is None:
        raise SasvError("a countermeasure needs --model: the spoof class is in the checkpoint")
    direction = model.spoof_direction()
    embeddings = embedded(options, model, utterances)
    if embeddings.failures:
        raise SasvError(f"{len(embeddings.failures)} utterances could not be embedded; they are in failed.tsv")
    norms = np.linalg.norm(embeddings.vectors, axis=1)
    values = -(embeddings.vectors @ direction) / np.maximum(norms, 1e-12)
    labels = ["spoof" if spoofed else BONA_FIDE for spoofed in utterances.spoofed]
    cells = {
        "speaker": utterances.table.texts("speaker"),
        "utterance": utterances.ids,
        "label": labels,
        "attack": utterances.attack_texts,
        "score": [f"{value:.9g}" for value in values],
    }
    cells |= {name: utterances.table.texts(name) for name in CARRIED if name in utterances.table.columns}
    path = Path(options.out) / "scores.tsv"
    table = Table.build(cells, str(path))
    table.save(path)
    return Scores(table)


def embedded(options: EvaluateOptions, model: Model | None, utterances: Utterances) -> Embeddings:
    """Return the embeddings of utterances: those that were given, or made now."""
    if options.embeddings:
        return Embeddings.load(options.embeddings)
    assert model is not None
    found = extract(model, utterances, Path(options.out) / "embeddings", options.batch_seconds, shard="1/1")
    assert found is not None
    return found


def cohort_of(options: EvaluateOptions, model: Model | None) -> Cohort | None:
    """Return the cohort of s-norm, embedded now; None where none is wanted."""
    if not options.cohort:
        return None
    if model is None:
        raise SasvError("s-norm needs --model, to embed the cohort")
    if options.cohort_by not in ("utterance", "speaker"):
        raise SasvError(f"'{options.cohort_by}': a cohort is taken by utterance or by speaker")
    people = load_utterances(options.cohort, options.cohort_where)
    found = extract(model, people, Path(options.out) / "cohort", options.batch_seconds, shard="1/1")
    assert found is not None
    speakers = None
    if options.cohort_by == "speaker":
        texts = people.table.texts("speaker")
        speakers = [texts[people.rows[name]] for name in found.utterances]
    return Cohort.build(found.vectors, speakers, found.crops > 0)
