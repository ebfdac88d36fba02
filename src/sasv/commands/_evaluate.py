"""sasv evaluate."""

import contextlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from sasv.commands._metrics import split_names
from sasv.core.errors import MissingExtra, SasvError
from sasv.core.files import write_json
from sasv.core.options import Count, NonNegativeFloat, Options, PositiveFloat, Probability, Range
from sasv.decision import Verifier
from sasv.embeddings.extract import Embeddings
from sasv.embeddings.model import Extraction, load_model
from sasv.evaluation import MeasureSettings, load_protocol, metrics_of
from sasv.evaluation.claims import SpoofColumns, score_claims
from sasv.evaluation.countermeasure import score_utterances
from sasv.evaluation.embedding import embed_cohort, embed_shared
from sasv.parallel.processes import Processes, joined
from sasv.report import plot_scores
from sasv.scores import Scoring

logger = logging.getLogger("sasv")


@dataclass
class EvaluateOptions(Options):
    """Score a protocol: score file, metrics and plot. Without trials: the model as a
    countermeasure.

    Args:
        utterances: utterance table.
        out: folder for scores.tsv, metrics.json, scores.png and the embeddings.
        enrolments: enrolment table; empty, with empty trials, scores every utterance as bona fide
            or spoofed.
        trials: trial table.
        model: checkpoint; may be left out where ``embeddings`` is given.
        embeddings: folder that sasv embed wrote, instead of embedding now.
        where: of a countermeasure: only the utterances with this ``column=value``.
        enrolment: of several recordings: mean (of raw embeddings, as published), normalised (mean
            of normalised ones), scores (mean of the scores against each).
        crops: multi-crop: this many crops an utterance, the score the mean over all pairs; 0 for
            whole utterances.
        crop_seconds: length of a crop.
        max_pause: cut stretches without speech down to so many seconds first; left out, utterances
            are embedded whole, as in the published protocols.
        cohort: utterance table of other people for adaptive s-norm.
        cohort_where: only its utterances with this ``column=value``.
        cohort_by: utterance, or speaker (the mean of each speaker's embeddings).
        top: cohort scores that count; 0 takes all.
        quality: write the quality measures log_seconds, log_enrolments and norm into the score
            file.
        spoof_share: of a model of the three-class loss, whose score file has the column ``llr``:
            share of spoofs among the trials that are not of the target.
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
    max_pause: Annotated[float | None, Range(0)] = None
    cohort: str = ""
    cohort_where: str = ""
    cohort_by: str = "utterance"
    top: Count = 300
    quality: bool = False
    spoof_share: Probability = 0.5
    by: str = "attack"
    batch_seconds: NonNegativeFloat = 0.0
    max_seconds: PositiveFloat = 300.0
    intervals: Count = 1000
    plot: bool = True
    device: str = "auto"


def evaluate(options: EvaluateOptions) -> dict[str, Any]:
    """Embed, score and measure a protocol; return the metrics.

    Started by torchrun, the processes embed together, the main one does the rest; the others return
    nothing.
    """
    if not (options.model or options.embeddings):
        raise SasvError("evaluate needs --model, or --embeddings from sasv embed")
    settings = MeasureSettings(by=split_names(options.by), repeats=options.intervals)
    model = None
    if options.model:
        extraction = Extraction(
            options.max_seconds, options.crops, options.crop_seconds, options.max_pause
        )
        model = load_model(options.model, options.device, extraction)
    elif options.cohort:
        raise SasvError("s-norm needs --model, to embed the cohort")
    elif not options.trials:
        raise SasvError("a countermeasure needs --model: the spoof class is in the checkpoint")
    protocol = load_protocol(options.utterances, options.enrolments, options.trials, options.where)
    out = Path(options.out)
    cohort = None
    with (
        contextlib.nullcontext(Processes()) if model is None else joined(model.device) as processes
    ):
        if options.embeddings:
            embeddings = Embeddings.load(options.embeddings)
        else:
            assert model is not None
            embeddings = embed_shared(
                model, protocol.utterances, out / "embeddings", options.batch_seconds, processes
            )
        if options.cohort and options.trials:
            assert model is not None
            cohort = embed_cohort(
                model,
                options.cohort,
                options.cohort_where,
                options.cohort_by,
                out / "cohort",
                options.batch_seconds,
                processes,
            )
        if not processes.main:
            return {}
    path = out / "scores.tsv"
    if options.trials:
        made = embeddings.extraction
        head = None if model is None else model.spoof_head()
        spoofing = None
        if model is not None and head is not None:
            spoofing = SpoofColumns(head, model.trial_classes(), options.spoof_share)
        scoring = Scoring(
            options.enrolment, cohort, options.top, made.crops, made.crop_seconds, made.max_pause
        )
        scores = score_claims(
            protocol, embeddings, Verifier(scoring), path, options.quality, spoofing
        )
        if cohort is not None:
            cohort.save(out / "cohort" / "cohort.npz")
    else:
        assert model is not None
        scores = score_utterances(protocol.utterances, embeddings, model.bona_fide_scores, path)
    result = metrics_of(scores, settings)
    write_json(out / "metrics.json", result)
    if options.plot:
        try:
            plot_scores(scores.values, scores.labels, out / "scores.png", result)
        except MissingExtra as error:
            logger.warning(str(error))
    logger.info(f"scores: {path}")
    return result
