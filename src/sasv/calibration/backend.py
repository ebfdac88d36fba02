"""Maps scores to log-likelihood ratios: calibration, quality measures as side information, and
fusion of two systems.

Sources: Bruemmer and du Preez, "Application-independent evaluation of speaker detection", 2006
(prior-weighted logistic regression); Ferrer et al., "Calibration of speaker recognition with side
information" (quality measures); Wang et al., "Revisiting and improving scoring fusion for
spoofing-aware speaker verification using compositional data analysis", Interspeech 2024 (non-linear
fusion of calibrated LLRs).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sasv.core.errors import SasvError
from sasv.core.files import read_json, write_json
from sasv.core.part_options import parse_options
from sasv.metrics.costs import CostModel
from sasv.metrics.curve import NONTARGET, SPOOF, TARGET
from sasv.tables.labels import TRIAL_LABELS

KINDS = ("logistic", "sum", "nonlinear")
RIDGE = 1e-6
"""Ridge penalty on the standardised weights, which keeps the weights finite if the scores separate
the classes perfectly.
"""


@dataclass
class Linear:
    """A log-likelihood ratio as a weighted sum of columns plus an offset."""

    columns: list[str]
    weights: list[float]
    offset: float

    def __call__(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the log-likelihood ratios (trials,) for columns, name -> (trials,)."""
        return self.offset + np.array(self.weights) @ np.stack(
            [columns[name] for name in self.columns]
        )


@dataclass
class Backend:
    """Combines the scores of a trial into one, which is a log-likelihood ratio except for the kind
    ``sum``.

    The LLR compares the target with a mixture of nontargets and spoofs that are weighted as in the
    cost model.

    Attributes:
        kind: logistic (one or more columns), sum, or nonlinear (a speaker score and a
            countermeasure score).
        columns: names of the columns that it reads.
        costs: the cost model for which it was fitted.
        parts: the fitted sums: one for logistic, and those of speaker and countermeasure for
            nonlinear.
        source: the trials on which it was fitted.
        scores: how the scores of these trials were made: ``scoring`` (see Scoring.to_dict) and the
            fingerprint of the ``model``; empty if unknown.
    """

    kind: str
    columns: list[str]
    costs: CostModel
    parts: list[Linear] = field(default_factory=list)
    source: str = ""
    scores: dict[str, Any] = field(default_factory=dict)

    @property
    def threshold(self) -> float | None:
        """Bayes threshold of its LLRs; None for a sum, which is not an LLR."""
        return None if self.kind == "sum" else self.costs.bayes_threshold

    def __call__(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the new score of each trial, (trials,), for columns, name -> (trials,).

        Raises:
            SasvError: a column is missing.
        """
        missing = [name for name in self.columns if name not in columns]
        if missing:
            raise SasvError(
                f"the calibration needs the column {', '.join(missing)}, but the scores have only: "
                f"{', '.join(columns)}"
            )
        if self.kind == "sum":
            return np.sum([columns[name] for name in self.columns], axis=0)
        if self.kind == "logistic":
            return self.parts[0](columns)
        speaker, bona_fide = (part(columns) for part in self.parts)
        share = self.costs.spoof_share
        with np.errstate(divide="ignore"):
            return -np.logaddexp(np.log1p(-share) - speaker, np.log(share) - bona_fide)

    def to_dict(self) -> dict[str, Any]:
        """Return the back-end as JSON values."""
        values = asdict(self)
        if not self.scores:
            del values["scores"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Backend":
        """Make a back-end from the result of ``to_dict``.

        Raises:
            SasvError: the values are not a back-end.
        """
        remedy = "make it again with sasv calibrate"
        try:
            made = parse_options(cls, values, "the back-end")
        except (TypeError, SasvError) as error:
            raise SasvError(f"this is not a calibration or fusion ({error}); {remedy}") from error
        parts = {"logistic": 1, "sum": 0, "nonlinear": 2}.get(made.kind)
        if parts is None or len(made.parts) != parts or not made.columns:
            raise SasvError(
                f"this is not a calibration or fusion (kind {made.kind!r} with {len(made.parts)} "
                f"parts); {remedy}"
            )
        if made.scores and not isinstance(made.scores.get("scoring"), dict):
            raise SasvError(
                "this is not a calibration or fusion (the record of its scores has no scoring); "
                f"{remedy}"
            )
        for part in made.parts:
            if len(part.weights) != len(part.columns) or not set(part.columns) <= set(made.columns):
                raise SasvError(
                    f"this is not a calibration or fusion (weights and columns differ); {remedy}"
                )
        return made

    def save(self, path: str | Path) -> None:
        """Write the back-end atomically as JSON."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> "Backend":
        """Read a back-end that ``save`` wrote.

        Raises:
            SasvError: the file is not a back-end.
        """
        values = read_json(path, remedy="make it again with sasv calibrate")
        try:
            return cls.from_dict(values)
        except (ValueError, SasvError) as error:
            raise SasvError(f"{path}: {error}") from error


def fit_backend(
    columns: Mapping[str, np.ndarray],
    labels: np.ndarray,
    costs: CostModel,
    kind: str = "logistic",
    quality: Sequence[str] = (),
    source: str = "",
) -> Backend:
    """Fit a back-end on development trials.

    Args:
        columns: name -> (trials,), the scores (for nonlinear: speaker, then countermeasure).
        labels: (trials,) 0 target, 1 nontarget, 2 spoof.
        costs: priors and costs, which determine the weights of nontargets and spoofs; the fit is
            best around their Bayes threshold.
        kind: one of KINDS.
        quality: names of those columns that are quality measures (seconds, number of enrolment
            recordings).
        source: description of the trials.

    Raises:
        SasvError: there are no trials of a class, or the columns do not match the kind.
    """
    names = [name for name in columns if name not in quality]
    if kind not in KINDS:
        raise SasvError(f"'{kind}' is not a kind of calibration; use one of: {', '.join(KINDS)}")
    if kind == "nonlinear" and len(names) != 2:
        raise SasvError(
            "the nonlinear fusion needs two scores, those of the speaker and of the "
            f"countermeasure, not {len(names)}"
        )
    found = Backend(kind, list(columns), costs, source=source)
    if kind == "sum":
        return found
    weights = costs.weights
    if kind == "logistic":
        kinds = [k for k in (TARGET, NONTARGET, SPOOF) if weights[k]]
        found.parts = [fit_linear(columns, labels, {k: weights[k] for k in kinds})]
        return found
    speaker, countermeasure = names
    side = {name: columns[name] for name in quality}
    real = labels != SPOOF
    known = {name: values[real] for name, values in ({speaker: columns[speaker]} | side).items()}
    found.parts = [
        fit_linear(known, labels[real], {TARGET: weights[0], NONTARGET: weights[1]}),
        fit_linear(
            {countermeasure: columns[countermeasure]} | side,
            np.where(real, TARGET, SPOOF),
            {TARGET: weights[0], SPOOF: weights[2]},
        ),
    ]
    return found


def fit_linear(
    columns: Mapping[str, np.ndarray], labels: np.ndarray, weights: Mapping[int, float]
) -> Linear:
    """Fit a weighted sum by logistic regression, so that it is a log-likelihood ratio of class 0
    against the other classes.

    Args:
        columns: name -> (trials,).
        labels: (trials,) classes.
        weights: class -> total weight of its trials (prior times cost).

    Raises:
        SasvError: a class has no trials, or a column is not finite.
    """
    features = np.stack([np.asarray(values, np.float64) for values in columns.values()], axis=1)
    if not np.isfinite(features).all():
        raise SasvError(
            f"one of the columns {', '.join(columns)} contains NaN or infinity; fix the score file"
        )
    counts = {kind: int((labels == kind).sum()) for kind in weights}
    if not all(counts.values()):
        lacking = [TRIAL_LABELS[kind] for kind, count in counts.items() if not count]
        raise SasvError(
            f"calibration needs {' and '.join(lacking)} trials among the development trials"
        )
    total = sum(weights.values())
    weight = sum(
        (labels == kind) * (share / total / counts[kind]) for kind, share in weights.items()
    )
    prior = np.log(weights[TARGET] / (total - weights[TARGET]))
    centre = features.mean(axis=0)
    scale = np.maximum(features.std(axis=0), 1e-12)
    inputs = np.column_stack(((features - centre) / scale, np.ones(len(features))))
    solved = logistic_regression(inputs, (labels == TARGET).astype(np.float64), weight, prior)
    slopes = solved[:-1] / scale
    return Linear(list(columns), slopes.tolist(), float(solved[-1] - slopes @ centre))


def logistic_regression(
    inputs: np.ndarray,
    wanted: np.ndarray,
    weight: np.ndarray,
    prior: float = 0.0,
    ridge_weight: float = RIDGE,
) -> np.ndarray:
    """Minimise the weighted cross-entropy of sigmoid(inputs @ x + prior) by Newton's method with
    step halving.

    Args:
        inputs: (items, features); the last feature is 1.
        wanted: (items,) 1 or 0.
        weight: (items,) weight of each item; items of weight 0 are left out.
        prior: log-odds that are added.
        ridge_weight: weight of the sum of squares of x without its last entry.

    Returns:
        x, (features,).
    """
    used = weight > 0
    inputs = inputs[used]
    wanted = wanted[used]
    weight = weight[used]
    ridge = ridge_weight * np.append(np.ones(inputs.shape[1] - 1), 0.0)

    def loss(x: np.ndarray) -> float:
        logits = inputs @ x + prior
        return float(
            weight @ np.logaddexp(0, np.where(wanted > 0, -logits, logits)) + ridge @ x**2 / 2
        )

    x = np.zeros(inputs.shape[1])
    value = loss(x)
    for _ in range(100):
        share = 0.5 * (1 + np.tanh((inputs @ x + prior) / 2))
        gradient = inputs.T @ (weight * (share - wanted)) + ridge * x
        curvature = inputs.T @ (inputs * (weight * share * (1 - share))[:, None]) + np.diag(
            ridge + 1e-12
        )
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while (after := loss(x - size * step)) > value and size > 1e-6:
            size /= 2
        if after >= value - 1e-14:
            break
        x = x - size * step
        value = after
    return x
