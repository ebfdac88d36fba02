"""sasv evaluate."""

import contextlib
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from sasv.audio import AUTO
from sasv.core.errors import MissingExtra, SasvError
from sasv.core.files import write_json
from sasv.core.options import (
    BootstrapCount,
    Count,
    CropCount,
    CropSeconds,
    NonNegativeFloat,
    Options,
    PositiveFloat,
    Range,
)
from sasv.core.outputs import refuse_inside_speech
from sasv.decision import Verifier
from sasv.embeddings.bandwidth import bandwidths
from sasv.embeddings.extract import Embeddings
from sasv.embeddings.model import Model, load_model
from sasv.evaluation import MeasureSettings, check_groups, load_protocol, metrics_of
from sasv.evaluation.claims import Spoofing, own_spoofing, score_claims
from sasv.evaluation.countermeasure import countermeasure_scores, score_utterances
from sasv.evaluation.embedding import embed_cohort, embed_shared
from sasv.evaluation.fusion import SUM, Fusion, load_fusion
from sasv.evaluation.measuring import counts_of
from sasv.metrics import Measure
from sasv.parallel.devices import Precision
from sasv.parallel.processes import Processes, process_group
from sasv.report import plot_scores
from sasv.runtime.embedder import Extraction
from sasv.scores import Scoring
from sasv.scores.scoring import Enrolment

logger = logging.getLogger("sasv")


@dataclass
class EvaluateOptions(Options):
    """Score the trials of a protocol; write the scores, their metrics, and a plot. Without trials,
    the model is evaluated as a countermeasure.

    Args:
        utterances: utterance table.
        out: output folder, for scores.tsv, metrics.json, scores.png, and the embeddings.
        enrolments: enrolment table; without it and without trials, every utterance is scored as
            bona fide or spoofed.
        trials: trial table.
        model: checkpoint; not needed if ``embeddings`` is given.
        countermeasure: checkpoint of a countermeasure (AASIST, or any that was trained with spoofed
            speech), which scores the tested utterances as well; the score is a fusion of both.
        fusion: sum (of asv_score and cm_score), or the file of a fusion of these columns that sasv
            calibrate fitted; by default sum if a countermeasure is given. Without a
            countermeasure, the spoof head of the model computes cm_score.
        embeddings: folder that sasv embed wrote, whose embeddings are used.
        where: without trials, score only the utterances with this ``column=value``.
        enrolment: how several enrolment recordings are combined: mean (of the raw embeddings, as
            published), normalised (mean of the length-normalised embeddings), or scores (mean of
            the scores against each).
        crops: number of crops per utterance, whose scores are averaged over all pairs of crops
            (multi-crop scoring); 0 scores whole utterances.
        crop_seconds: length of a crop, in seconds.
        max_pause: shorten stretches without speech to this many seconds before embedding; by
            default utterances are embedded whole, as in the published protocols.
        cohort: utterance table of other people, for adaptive s-norm.
        cohort_where: take only its utterances with this ``column=value``.
        cohort_by: use every utterance of the cohort, or the mean embedding of each speaker.
        top: number of the highest cohort scores to use; 0 takes all.
        quality: write the quality measures log_seconds, log_enrolments, and norm into the score
            file, and with ``model`` also bandwidth and enrolment_bandwidth, in Hz.
        spoof_share: for a model with the three-class loss, whose score file has the column ``llr``:
            the share of spoofs among the trials that are not target trials; by default that of the
            cost model asvspoof5, which sasv verify uses by default.
        by: columns of the trials or the utterances (attack,codec) for each of whose values the
            metrics are computed separately.
        batch_seconds: padded audio per batch, in seconds; 0 takes 30 on a CPU and 600 on a GPU.
        max_seconds: length in seconds above which an utterance is refused.
        channel: channel to use of recordings with several, if the table has no such column:
            mean, loudest, or a number counted from 0; auto takes the mean, or the loudest channel
            if the channels cancel each other.
        intervals: number of bootstrap samples over speakers for 95 % intervals; 0 computes none.
        plot: write scores.png (needs sasv[plots]).
        device: cpu, cuda, or auto.
        precision: arithmetic of the encoder: float32, or bfloat16, which is up to twice as fast on
            devices with instructions for it and changes most scores by about 0.001.
    """

    utterances: str
    out: str
    enrolments: str = ""
    trials: str = ""
    model: str = ""
    countermeasure: str = ""
    fusion: str = ""
    embeddings: str = ""
    where: str = ""
    enrolment: Enrolment = "mean"
    crops: CropCount = 0
    crop_seconds: CropSeconds = 4.0
    max_pause: Annotated[float | None, Range(0)] = None
    cohort: str = ""
    cohort_where: str = ""
    cohort_by: Literal["utterance", "speaker"] = "utterance"
    top: Count = 300
    quality: bool = False
    spoof_share: Annotated[float | None, Range(0, 1)] = None
    by: list[str] = field(default_factory=lambda: ["attack"])
    batch_seconds: NonNegativeFloat = 0.0
    max_seconds: PositiveFloat = 300.0
    channel: str = AUTO
    intervals: BootstrapCount = 1000
    plot: bool = True
    device: str = "auto"
    precision: Precision = "float32"


def evaluate(options: EvaluateOptions) -> dict[str, Any]:
    """Embed, score, and measure a protocol; return the metrics.

    If started by torchrun, all processes embed, the main process does the rest, and the others
    return None.
    """
    check_together(options)
    protocol = load_protocol(options.utterances, options.enrolments, options.trials, options.where)
    refuse_inside_speech(options.out, protocol.utterances.paths)
    check_groups(protocol, options.by)
    model = None
    if options.model:
        extraction = Extraction(
            options.max_seconds,
            options.crops,
            options.crop_seconds,
            options.max_pause,
            options.channel,
        )
        model = load_model(options.model, options.device, extraction, options.precision)
    countermeasure = None
    if options.countermeasure:
        whole = Extraction(options.max_seconds, channel=options.channel)
        countermeasure = load_model(
            options.countermeasure, options.device, whole, options.precision
        )
        countermeasure.check_countermeasure()
    fusion = fusion_of(options, model, countermeasure)
    settings = MeasureSettings(
        llr=fusion is not None and fusion.gives_llr,
        by=options.by,
        utterances=protocol.utterances,
        repeats=options.intervals,
    )
    out = Path(options.out)
    cohort = None
    cm_scores: dict[str, float] = {}
    loaded = model or countermeasure
    with (
        contextlib.nullcontext(Processes())
        if loaded is None
        else process_group(loaded.device) as processes
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
            check_cohort(options, model, embeddings)
            cohort = embed_cohort(
                model,
                options.cohort,
                options.cohort_where,
                options.cohort_by,
                out / "cohort",
                options.batch_seconds,
                processes,
            )
        if countermeasure is not None:
            cm_scores = countermeasure_scores(
                countermeasure, protocol, out / "countermeasure", options.batch_seconds, processes
            )
        if not processes.main:
            return {}
    path = out / "scores.tsv"
    if options.trials:
        made = embeddings.extraction
        scoring = Scoring(
            options.enrolment, cohort, options.top, made.crops, made.crop_seconds, made.max_pause
        )
        if fusion is not None:
            fusion.check(scoring.to_dict(), embeddings.model, options.fusion)
        spoofing = None
        if countermeasure is not None:
            spoofing = Spoofing(cm_scores, fusion)
        elif model is not None:
            share = options.spoof_share
            spoofing = own_spoofing(model, embeddings, scoring, fusion, share)
        found = None
        if model is not None and (options.quality or depends_on_bandwidth(spoofing)):
            found = bandwidths(model, protocol.utterances, out / "bandwidth.tsv")
        scores = score_claims(
            protocol, embeddings, Verifier(scoring), path, options.quality, spoofing, found
        )
        if cohort is not None:
            cohort.save(out / "cohort" / "cohort.npz")
    else:
        assert model is not None
        scores = score_utterances(model, protocol.utterances, embeddings, path)
    result = metrics_of(scores, settings)
    result["precision"] = embeddings.precision
    llrs = scores.numbers("llr")
    if llrs is not None:
        result["llr"] = Measure(llrs, scores.labels, llr=True)() | counts_of(scores.labels)
    write_json(out / "metrics.json", result)
    if options.plot:
        try:
            plot_scores(scores.values, scores.labels, out / "scores.png", result)
        except MissingExtra as error:
            logger.warning(str(error))
    precision = "" if embeddings.precision == "float32" else f", computed in {embeddings.precision}"
    logger.info(f"scores: {path}{precision}")
    return result


def check_together(options: EvaluateOptions) -> None:
    """Check the combination of options. Raises SasvError, which says which are missing."""
    if not (options.model or options.embeddings):
        raise SasvError("sasv evaluate needs --model, or --embeddings from sasv embed")
    if options.cohort and not options.model:
        raise SasvError("s-norm needs --model, to embed the cohort")
    if options.trials:
        return
    if not options.model:
        raise SasvError(
            "a countermeasure needs --model, because the spoof class is in the checkpoint"
        )
    if options.countermeasure or options.fusion:
        raise SasvError(
            "a fusion needs --enrolments and --trials; to score utterances with a countermeasure "
            "alone, give it as --model"
        )


def check_cohort(options: EvaluateOptions, model: Model, embeddings: Embeddings) -> None:
    """Check that the cohort will be embedded as the utterances were. Raises SasvError if not."""
    if embeddings.model not in ("", model.fingerprint):
        raise SasvError(
            f"{options.embeddings}: these embeddings are not those of {model.name}, which would "
            "embed the cohort; give the model that made them"
        )
    made, given = embeddings.extraction, model.extraction
    settings: list[tuple[str, object, object]] = [
        ("precision", embeddings.precision, model.precision),
        ("crops", made.crops, given.crops),
        ("max-pause", made.max_pause, given.max_pause),
    ]
    if made.crops:
        settings.append(("crop-seconds", made.crop_seconds, given.crop_seconds))
    for name, there, here in settings:
        if there != here:
            remedy = f"leave out --{name}" if there is None else f"give --{name} {there}"
            raise SasvError(
                f"{options.embeddings}: these embeddings were computed with the {name} {there}, "
                f"but the cohort would be with {here}; {remedy}"
            )


def depends_on_bandwidth(spoofing: Spoofing | None) -> bool:
    """Return whether the verdicts of a calibration depend on the bandwidth of the recordings."""
    three_way = None if spoofing is None else spoofing.three_way
    return three_way is not None and three_way.calibration.narrow is not None


def fusion_of(
    options: EvaluateOptions, model: Model | None, countermeasure: Model | None
) -> Fusion | None:
    """Return the requested fusion, or None. Raises SasvError if it lacks a countermeasure."""
    if countermeasure is not None:
        return load_fusion(options.fusion or SUM, countermeasure.fingerprint)
    if not options.fusion:
        return None
    if model is None or model.spoof_head() is None:
        raise SasvError(
            "--fusion needs --countermeasure, or a --model that was trained with a spoof head"
        )
    return load_fusion(options.fusion, model.fingerprint)
