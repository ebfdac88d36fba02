"""sasv calibrate."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from sasv.calibration import Backend, ThreeWay, fit_backend, fit_three_way
from sasv.calibration.narrow_band import (
    BOTH,
    LEAST_TRIALS,
    MEDIUM,
    MEDIUM_HZ,
    NARROW_HZ,
    ONE,
)
from sasv.calibration.three_way import CM_SCORE, NORM
from sasv.checkpoints import load_checkpoint, save_checkpoint
from sasv.commands._calibrate_people import fit_to_people
from sasv.core.errors import SasvError
from sasv.core.options import CropCount, CropSeconds, Options, Range
from sasv.decision import SpeechLimits, Verifier
from sasv.decision.verifier import SCORE
from sasv.embeddings.model import Model
from sasv.evaluation.measuring import counts_of
from sasv.metrics import CostModel, Measure, cost_model
from sasv.metrics.curve import SPOOF
from sasv.report.text import format_metrics
from sasv.scores import Scoring, read_scores
from sasv.scores.quality import BANDWIDTH, ENROLMENT_BANDWIDTH, QUALITY
from sasv.scores.scoring import Enrolment, described, load_scoring, same_scoring, unfused
from sasv.tables import Scores, Table
from sasv.weights.catalogue import DEFAULT

logger = logging.getLogger("sasv")


@dataclass
class CalibrateOptions(Options):
    """Fit a calibration or a fusion on development trials: scores become log-likelihood ratios,
    and the threshold follows from the costs.

    Args:
        scores: score file of development trials; left out with --enrolled.
        out: output file for the fitted back-end (JSON).
        kind: logistic (calibration, or linear fusion of several columns), sum, nonlinear (fusion of
            calibrated speaker and countermeasure scores), or three-way (for a checkpoint with a
            spoof head: log-likelihood ratios for the speaker and for spoofing, which distinguish
            targets, other speakers, and spoofs).
        columns: score columns (asv_score,cm_score to fuse two systems).
        quality: columns of quality measures to use as well (log_seconds,log_enrolments,norm). Kind
            three-way uses norm only, to detect recordings unlike the development trials, and
            bandwidth, together with enrolment_bandwidth, to calibrate telephone speech, and other
            speech of a lower bandwidth, separately.
        condition: for kind three-way: column that gives the condition in which bona fide speech was
            recorded; conditions are left out of the fit one at a time, to estimate how well the
            calibration generalises to new ones.
        costs: name of a cost model, or six numbers: priors of target, nontarget, and spoof, then
            the costs of a miss, of an accepted nontarget, and of an accepted spoof.
        key: trial list with labels, if the score file has none.
        cm: score file of a countermeasure, read into the column cm_score beside asv_score.
        apply: score file of other trials, to which the back-end is applied.
        apply_key: trial list with the labels of ``apply``.
        apply_cm: score file of the countermeasure for ``apply``.
        result: output file for the new scores of ``apply``.
        enrolment: enrolment rule of the scores, as in sasv evaluate. This option and the three
            below are only used if there is no record of how the scores were made.
        crops: number of crops of the scores.
        crop_seconds: length of these crops, in seconds.
        max_pause: length to which pauses were shortened for the scores, in seconds.
        enrolled: folder with one subfolder of recordings for each of your own people. The
            calibration is then fitted to these people and to copies of their speech that sasv
            makes, instead of to a score file, and the error rates to expect are printed.
        model: checkpoint that made the scores; the calibration, costs, and threshold are added
            to it. With --enrolled, by default the model that comes with sasv.
        model_out: output file for the calibrated checkpoint.
        limits: requirements on recordings that the calibrated checkpoint has instead of those of
            --model, by name (--limits.min_test 2); see the guide to verification.
    """

    scores: str = ""
    out: str = ""
    kind: Literal["logistic", "sum", "nonlinear", "three-way"] = "logistic"
    columns: list[str] = field(default_factory=lambda: ["score"])
    quality: list[str] = field(default_factory=list)
    condition: str = "codec"
    costs: str = "asvspoof5"
    key: str = ""
    cm: str = ""
    apply: str = ""
    apply_key: str = ""
    apply_cm: str = ""
    result: str = ""
    enrolment: Enrolment = "mean"
    crops: CropCount = 0
    crop_seconds: CropSeconds = 4.0
    max_pause: Annotated[float | None, Range(0)] = None
    enrolled: str = ""
    model: str = ""
    model_out: str = ""
    limits: dict[str, Annotated[float, Range()]] = field(default_factory=dict)


def calibrate(options: CalibrateOptions) -> Backend:
    """Fit a calibration or fusion; write it, apply it, and put it into a checkpoint, as requested;
    return it.
    """
    if bool(options.apply) != bool(options.result):
        raise SasvError("--apply FILE and --result FILE can only be used together")
    if options.enrolled:
        return calibrate_people(options)
    if not options.scores:
        raise SasvError("sasv calibrate needs a score file, or --enrolled FOLDER")
    if bool(options.model) != bool(options.model_out):
        raise SasvError("--model needs --model-out: the calibrated checkpoint is a new file")
    if options.limits and not options.model:
        raise SasvError("--limits is stored in a checkpoint; give --model and --model-out")
    if not options.columns:
        raise SasvError("--columns is empty; give one or more columns, or leave it out")
    names = options.columns
    quality = options.quality
    costs = cost_model(options.costs)
    column = "" if names[0] == SCORE else names[0]
    record = load_scoring(options.scores)
    scoring = assumed_scoring(options) if record is None else record[0]
    if options.model and scoring.get("fusion") is not None:
        raise SasvError(
            f"{options.scores}: these scores were made with {described(scoring)}, but a checkpoint "
            "can only contain the calibration of its own score. Write the fusion with --out FILE, "
            "and give that file to sasv evaluate --fusion"
        )
    scores = read_scores(options.scores, options.key, column, options.cm)
    three_way = None
    if options.kind == "three-way":
        three_way = three_way_of(scores, options, costs)
        quality = []
    columns = columns_of(scores, [*names, *quality])
    kind = "logistic" if three_way is not None else options.kind
    backend = fit_backend(columns, scores.labels, costs, kind, quality, Path(options.scores).name)
    if record is not None:
        backend.scores = {"scoring": record[0], "model": record[1]}
    fitted = backend(columns)
    measure = Measure(fitted, scores.labels, costs=[costs], llr=options.kind != "sum", brief=True)
    logger.info(f"on {options.scores}, to whose trials the calibration was fitted:")
    logger.info(format_metrics(measure() | counts_of(scores.labels)))
    warn_of_inverted(backend, quality, options.scores)
    if options.out:
        backend.save(options.out)
        logger.info(f"back-end: {options.out}")
    if options.apply:
        other = load_scoring(options.apply)
        # A fusion is fitted to its columns, so it does not matter how they were combined before.
        kept = dict if SCORE in names else unfused
        if record and other and not same_scoring(kept(scoring), kept(other[0])):
            raise SasvError(
                f"{options.apply}: these scores were made with {described(other[0])}, but the "
                f"calibration is only valid for scores like those in {options.scores}, made with "
                f"{described(scoring)}"
            )
        applied = read_scores(options.apply, options.apply_key, column, options.apply_cm)
        write_scores(applied, backend(columns_of(applied, backend.columns)), options.result)
        logger.info(f"scores: {options.result}")
    if options.model:
        if record is None:
            logger.info(
                f"{options.scores}: there is no record of how its scores were made; assuming "
                f"{described(scoring)}"
            )
        fingerprint = "" if record is None else record[1]
        into_checkpoint(backend, scoring, fingerprint, options, three_way)
    return backend


def calibrate_people(options: CalibrateOptions) -> Backend:
    """Fit a calibration to the user's own people; write it and put it into a checkpoint if
    requested; return it.
    """
    given = [options.scores, options.out, options.key, options.cm, options.apply]
    if any(given) or options.kind != "logistic" or options.columns != [SCORE] or options.quality:
        raise SasvError(
            "--enrolled can only be combined with --model, --model-out, and --costs, because the "
            "scores are computed from the recordings, and the kind of calibration is that of the "
            "model"
        )
    options = replace(options, model=options.model or DEFAULT)
    backend, three_way, scoring, fingerprint = fit_to_people(
        options.enrolled, options.model, cost_model(options.costs)
    )
    if options.model_out:
        into_checkpoint(backend, scoring, fingerprint, options, three_way)
    return backend


def three_way_of(scores: Scores, options: CalibrateOptions, costs: CostModel) -> ThreeWay:
    """Return the three-way calibration that is fitted to scores.

    Raises:
        SasvError: the options cannot be combined, or a column is missing.
    """
    if not options.model or options.out or options.apply:
        raise SasvError(
            "--kind three-way writes its calibration into a checkpoint; give --model and "
            "--model-out, and neither --out nor --apply"
        )
    if options.columns != [SCORE] or set(options.quality) - {NORM, BANDWIDTH}:
        raise SasvError(
            f"--kind three-way uses the columns {SCORE} and {CM_SCORE}, and {NORM} and {BANDWIDTH} "
            "if --quality names them; leave out --columns and other quality measures"
        )
    names = [SCORE, CM_SCORE, *options.quality]
    if BANDWIDTH in names:
        names.append(ENROLMENT_BANDWIDTH)
    columns = columns_of(scores, names)
    codes, attacks = scores.attacks
    groups = np.array(attacks)[codes]
    if options.condition in scores.table.columns:
        bona_fide = scores.labels != SPOOF
        conditions = np.array(scores.table.texts(options.condition))
        groups = np.where(bona_fide, conditions, groups)
    encoder_options = load_checkpoint(options.model).specification.encoder_options
    found = fit_three_way(
        columns,
        scores.labels,
        groups,
        costs,
        Path(options.scores).name,
        bool(encoder_options.get("spoof_axis", False)),
    )
    logger.info(
        f"spoof LLR: multiplied by {found.share:.2f}, the best factor for attacks and conditions "
        f"that were left out of the fit; its absolute value is at most {found.bound:.1f}"
    )
    if BANDWIDTH in columns:
        logger.info(narrow_band_of(found))
    return found


def narrow_band_of(calibration: ThreeWay) -> str:
    """Return in words which trials of a lower bandwidth have a calibration of their own."""
    if calibration.narrow is None:
        return (
            f"narrow-band speech (below {NARROW_HZ:g} Hz) and speech of medium bandwidth (below "
            f"{MEDIUM_HZ:g} Hz): calibrated together with all other speech, because a calibration "
            f"of its own needs {LEAST_TRIALS} target and {LEAST_TRIALS} nontarget trials with it, "
            "and as many of wide-band speech"
        )
    narrow = calibration.narrow
    kinds = {
        ONE: f"one side is narrow-band (below {narrow.below:g} Hz)",
        BOTH: f"both sides are narrow-band (below {narrow.below:g} Hz)",
        MEDIUM: f"a side has a medium bandwidth (below {narrow.medium_below:g} Hz)",
    }
    named = [kinds[kind] for kind in narrow.lines]
    return (
        "bandwidth of the enrolment and of the tested recording: trials in which "
        f"{', and trials in which '.join(named)} have a calibration of their own"
    )


def warn_of_inverted(backend: Backend, quality: Sequence[str], name: str) -> None:
    """Warn about columns in which targets have lower values: they may be distances, or the file may
    be the wrong one.

    Args:
        backend: the fitted calibration.
        quality: columns whose weights may have any sign.
        name: of the score file.
    """
    for part in backend.parts:
        for column, weight in zip(part.columns, part.weights):
            if weight < 0 and column not in quality:
                logger.warning(
                    f"warning: {name}: the weight of {column} is {weight:.3g}, so targets have "
                    "lower values there; is this the right file?"
                )


def assumed_scoring(options: CalibrateOptions) -> dict[str, Any]:
    """Return how the scores were made according to the options."""
    scoring = Scoring(
        options.enrolment,
        crops=options.crops,
        crop_seconds=options.crop_seconds,
        max_pause=options.max_pause,
    )
    return scoring.to_dict()


def columns_of(scores: Scores, names: list[str]) -> dict[str, np.ndarray]:
    """Return columns of a score table as numbers. Raises SasvError if one is missing."""
    found = {}
    for name in names:
        values = scores.numbers(name)
        if values is None:
            written = name in (*QUALITY, BANDWIDTH, ENROLMENT_BANDWIDTH)
            hint = "; sasv evaluate --quality writes it" if written else ""
            raise SasvError(
                f"{scores.table.name}: there is no column '{name}'; the columns are: "
                f"{', '.join(scores.table.columns)}{hint}"
            )
        found[name] = values
    return found


def write_scores(scores: Scores, values: np.ndarray, path: str) -> None:
    """Write a score table with new scores; all other columns are unchanged."""
    cells = {name: scores.table.texts(name) for name in scores.table.columns}
    cells["score"] = [f"{value:.9g}" for value in values]
    Table.build(cells, path).save(path)


def into_checkpoint(
    backend: Backend,
    scoring: dict[str, Any],
    fingerprint: str,
    options: CalibrateOptions,
    three_way: ThreeWay | None = None,
) -> None:
    """Write a new checkpoint with the calibration, its costs, its threshold, and the record of the
    scores for which they are valid.

    Args:
        backend: the calibration.
        scoring: how the scores to which it was fitted were made (see Scoring.to_dict).
        fingerprint: fingerprint of the model that made them; empty if unknown.
        options: name the checkpoint and the output file.
        three_way: three-way calibration; if None, ``backend`` alone decides.
    """
    verifier = Verifier().calibrated(replace(backend, scores={}))
    checkpoint = load_checkpoint(options.model)
    decision = checkpoint.specification.decision or {}
    limits = SpeechLimits.from_dict(decision.get("speech", {}) | options.limits)
    verifier = replace(verifier, limits=limits)
    model = Model(checkpoint)
    if three_way is not None:
        head = model.spoof_head()
        if head is None:
            raise SasvError(
                f"{options.model}: the model has no spoof head to compute {CM_SCORE}; train one "
                "with --spoof-head linear"
            )
        verifier = verifier.with_three_way(three_way, head)
    if fingerprint and fingerprint != model.fingerprint:
        logger.info(
            f"{options.scores}: these scores were made by another model than {options.model} (or "
            "by the same one in another precision), but a calibration is only valid for the model "
            "that made the scores"
        )
    checkpoint.specification = replace(
        checkpoint.specification, scoring=scoring, decision=verifier.decision_record()
    )
    save_checkpoint(options.model_out, checkpoint)
    logger.info(f"model: {options.model_out}")
