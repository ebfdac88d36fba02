"""sasv calibrate."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sasv.calibration import Backend, fit_backend
from sasv.checkpoints import load_checkpoint, save_checkpoint
from sasv.core.errors import SasvError
from sasv.core.options import Options
from sasv.core.progress import say
from sasv.metrics import Measure, cost_model
from sasv.report.text import format_metrics
from sasv.scores import read_scores
from sasv.scores.quality import QUALITY
from sasv.tables import Scores, Table


@dataclass
class CalibrateOptions(Options):
    """Scores to log-likelihood ratios, fitted on development trials; fusion of two systems; a threshold from costs.

    Args:
        scores: score file of development trials.
        out: file for the fitted back-end (JSON).
        kind: logistic (calibration, or linear fusion of several columns), sum, or nonlinear (fusion of calibrated
            speaker and countermeasure scores).
        columns: score columns, separated by commas (asv_score,cm_score to fuse).
        quality: columns of side information, separated by commas (log_seconds,log_enrolments,norm).
        costs: cost model by name, or six numbers: priors of target, nontarget, spoof, costs of their errors.
        key: trials with labels, where the score file has none.
        cm: score file of a countermeasure beside that of a speaker system (columns asv_score, cm_score).
        apply: another score file to turn into the new scores.
        apply_key: its trials.
        apply_cm: its countermeasure scores.
        result: where the new scores go.
        model: checkpoint whose scores these are: it gets the calibration, the costs and the threshold.
        model_out: where the checkpoint that carries them goes.
    """

    scores: str
    out: str = ""
    kind: str = "logistic"
    columns: str = "score"
    quality: str = ""
    costs: str = "asvspoof5"
    key: str = ""
    cm: str = ""
    apply: str = ""
    apply_key: str = ""
    apply_cm: str = ""
    result: str = ""
    model: str = ""
    model_out: str = ""


def calibrate(options: CalibrateOptions) -> Backend:
    """Fit a back-end; write it, apply it, put it into a checkpoint, as wanted; return it."""
    if bool(options.apply) != bool(options.result):
        raise SasvError("--apply FILE needs --result FILE, and the other way round")
    if bool(options.model) != bool(options.model_out):
        raise SasvError("--model needs --model-out: the calibrated checkpoint is a new file")
    names, quality = _split(options.columns), _split(options.quality)
    costs = cost_model(options.costs)
    column = names[0]
    scores = read_scores(options.scores, options.key, "" if column == "score" else column, options.cm)
    columns = columns_of(scores, [*names, *quality])
    backend = fit_backend(columns, scores.labels, costs, options.kind, quality, Path(options.scores).name)
    fitted = backend(columns)
    measure = Measure(fitted, scores.labels, costs=[costs], llr=options.kind != "sum", brief=True)
    counts = np.bincount(scores.labels, minlength=3).tolist()
    print(f"on the trials it was fitted to, {options.scores}:")
    print(format_metrics(measure() | dict(zip(("targets", "nontargets", "spoofs"), counts))))
    if options.out:
        backend.save(options.out)
        say(f"back-end: {options.out}")
    if options.apply:
        other = read_scores(options.apply, options.apply_key, "" if column == "score" else column, options.apply_cm)
        write_scores(other, backend(columns_of(other, backend.columns)), options.result)
        say(f"scores: {options.result}")
    if options.model:
        into_checkpoint(backend, options)
    return backend


def columns_of(scores: Scores, names: list[str]) -> dict[str, np.ndarray]:
    """Return columns of a score table as numbers. SasvError where one is missing."""
    found = {}
    for name in names:
        values = scores.numbers(name)
        if values is None:
            hint = "; sasv evaluate --quality writes it" if name in QUALITY else ""
            raise SasvError(f"{scores.table.name}: no column '{name}'; it has: {', '.join(scores.table.columns)}{hint}")
        found[name] = values
    return found


def write_scores(scores: Scores, values: np.ndarray, path: str) -> None:
    """Write a score table with new scores, all other columns as they are."""
    cells = {name: scores.table.texts(name) for name in scores.table.columns}
    cells["score"] = [f"{value:.9g}" for value in values]
    Table.build(cells, path).save(path)


def into_checkpoint(backend: Backend, options: CalibrateOptions) -> None:
    """Write the checkpoint anew with calibration, costs and threshold in its specification."""
    if backend.kind != "logistic" or backend.columns[0] != "score" or set(backend.columns[1:]) - set(QUALITY):
        raise SasvError("a checkpoint carries the calibration of its own score (kind logistic, columns score)")
    if backend.parts[0].weights[0] <= 0:
        raise SasvError(f"{options.scores}: higher scores are not for targets there; is that the right score file?")
    checkpoint = load_checkpoint(options.model)
    calibration: dict[str, Any] = backend.to_dict()
    changes: dict[str, Any] = {"calibration": calibration}
    if len(backend.columns) == 1:
        linear = backend.parts[0]
        changes["threshold"] = (backend.costs.bayes_threshold - linear.offset) / linear.weights[0]
        changes["threshold_source"] = f"costs {backend.costs.describe()}; calibrated on {backend.source}"
    checkpoint.specification = replace(checkpoint.specification, **changes)
    save_checkpoint(options.model_out, checkpoint)
    say(f"model: {options.model_out}")


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
