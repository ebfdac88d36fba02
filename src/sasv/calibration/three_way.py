"""Two log-likelihood ratios of a trial, for the speaker and for spoofing, which shrink to 0 outside
the conditions of the development trials.

A countermeasure learns the vocoders and recording conditions of its training data, but is just as
confident elsewhere. Its log-likelihood ratio (LLR) is therefore shrunk towards 0, which favours
neither hypothesis, in two ways: by a factor that is chosen on attacks and conditions left out of
the fit one at a time, and by another factor for recordings unlike the development trials.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from sasv.calibration.backend import Linear, fit_linear
from sasv.calibration.narrow_band import SCORE, NarrowBand, fit_speaker
from sasv.core.errors import SasvError
from sasv.core.part_options import parse_options
from sasv.metrics.costs import CostModel
from sasv.metrics.curve import SPOOF, TARGET
from sasv.scores.quality import BANDWIDTH, ENROLMENT_BANDWIDTH, Bandwidths
from sasv.scores.spoofing import Evidence

CM_SCORE = "cm_score"
NORM = "norm"
SHARES = np.linspace(0, 1, 21)
EVEN = {TARGET: 0.5, SPOOF: 0.5}
"""Bona fide and spoofed speech have equal weights in the fit of a spoof LLR."""


@dataclass(frozen=True)
class KnownRange:
    """Range of a measure over the development trials.

    Attributes:
        low, high: the lowest and the highest value.
        spread: the standard deviation.
    """

    low: float
    high: float
    spread: float

    def familiarity(self, values: np.ndarray) -> np.ndarray:
        """Return 1 for values (of any shape) inside the range. Outside, the result falls to 0 like
        a normal density with this spread.
        """
        outside = np.maximum(np.maximum(self.low - values, values - self.high), 0.0)
        found: np.ndarray = np.exp(-0.5 * np.square(outside / max(self.spread, 1e-12)))
        return found


@dataclass(frozen=True)
class ThreeWay:
    """Computes LLRs for the speaker and for spoofing from the two scores of a trial.

    Attributes:
        speaker: maps the column ``score`` to the LLR of target against nontarget.
        spoof: maps the column ``cm_score`` to the LLR of bona fide against spoofed speech, as
            fitted on the development trials.
        share: factor of the spoof LLR, from 0 to 1.
        bound: maximum absolute value of the spoof LLR, because the development trials cannot
            support a larger one.
        ranges: measure of the tested recording (``cm_score``, ``norm``) -> its known range.
        costs: priors and costs that determine the verdict.
        source: the trials to which the calibration was fitted.
        spoof_axis: ``cm_score`` is the last coordinate of the embedding's direction, negated (see
            encoders.layers.SpoofAxis). It lowers the cosine of spoofed speech; the LLR of the
            speaker is computed from the cosine in the other dimensions, so that a spoof does not
            look like another speaker.
        narrow: maps ``score`` to the LLR of the speaker for speech that is narrow-band or of medium
            bandwidth, for which ``speaker`` is not valid; None treats all speech alike.
    """

    speaker: Linear
    spoof: Linear
    share: float
    bound: float
    ranges: dict[str, Any]
    costs: CostModel
    source: str = ""
    spoof_axis: bool = False
    narrow: NarrowBand | None = None
    known: dict[str, KnownRange] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        known = {
            name: values
            if isinstance(values, KnownRange)
            else parse_options(KnownRange, values, f"the range of {name}")
            for name, values in self.ranges.items()
        }
        object.__setattr__(self, "known", known)
        numbers = [self.share, self.bound]
        parts = parts_of(self.speaker, self.narrow, self.spoof)
        for part, _ in parts:
            numbers += [*part.weights, part.offset]
        for one in known.values():
            numbers += [one.low, one.high, one.spread]
        if not np.isfinite(numbers).all() or not 0 <= self.share <= 1 or self.bound < 0:
            raise SasvError(
                "the three-way calibration is invalid; make it again with sasv calibrate"
            )
        for part, column in parts:
            if part.columns != [column] or len(part.weights) != 1:
                raise SasvError(f"the three-way calibration must use only the column {column}")
        if set(known) - {CM_SCORE, NORM}:
            raise SasvError(f"the three-way calibration has unexpected ranges: {', '.join(known)}")

    def __call__(
        self,
        scores: np.ndarray,
        cm_scores: np.ndarray,
        norms: np.ndarray,
        bandwidths: Bandwidths | None = None,
    ) -> Evidence:
        """Return the LLRs of trials, and how similar their tested recordings are to the development
        trials.

        Args:
            scores: (trials,) speaker scores.
            cm_scores: (trials,) scores of the spoof head for the tested recordings.
            norms: (trials,) norms of the raw embeddings of the tested recordings.
            bandwidths: of both sides of the trials; None takes all speech for wide-band.
        """
        measures = {CM_SCORE: cm_scores, NORM: norms}
        familiarity = np.ones(np.shape(cm_scores))
        for name, known in self.known.items():
            familiarity = familiarity * known.familiarity(measures[name])
        raw = self.spoof({CM_SCORE: cm_scores})
        spoof = self.share * familiarity * np.clip(raw, -self.bound, self.bound)
        if self.spoof_axis:
            scores = without_axis(scores, cm_scores)
        if self.narrow is None or bandwidths is None:
            return Evidence(self.speaker({SCORE: scores}), spoof, familiarity)
        speaker = self.narrow.speaker(self.speaker, scores, bandwidths)
        return Evidence(speaker, spoof, familiarity)

    def to_dict(self) -> dict[str, Any]:
        """Return the calibration as plain values."""
        values = asdict(self)
        del values["known"]
        if self.narrow is None:
            del values["narrow"]  # the record of a calibration without it is that of sasv 0.1
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ThreeWay":
        """Make a calibration from the result of ``to_dict``. Raises SasvError for anything else."""
        if not isinstance(values, Mapping) or "known" in values:
            raise SasvError("not a three-way calibration; make it again with sasv calibrate")
        try:
            return parse_options(cls, values, "the three-way calibration")
        except TypeError as error:
            raise SasvError(f"not a three-way calibration ({error})") from error


def fit_three_way(
    columns: Mapping[str, np.ndarray],
    labels: np.ndarray,
    groups: Sequence[str],
    costs: CostModel,
    source: str = "",
    spoof_axis: bool = False,
    before: NarrowBand | None = None,
) -> ThreeWay:
    """Fit the two LLRs on development trials.

    Args:
        columns: ``score``, ``cm_score``, and, if known, ``norm``, or ``bandwidth`` together with
            ``enrolment_bandwidth``, to calibrate speech of each bandwidth separately; each
            (trials,).
        labels: (trials,) 0 target, 1 nontarget, 2 spoof.
        groups: (trials,) group of each trial: the attack of a spoofed one, the condition (codec) of
            a bona fide one.
        costs: priors and costs that will determine the verdicts.
        source: description of the trials.
        spoof_axis: see ``ThreeWay``.
        before: ``narrow`` of an earlier calibration, whose lines are kept for bandwidths of which
            there are too few trials.

    Raises:
        SasvError: there are no trials of a class, a value is not finite, or higher scores mean
            spoofed speech.
    """
    bona_fide = labels != SPOOF
    if not costs.weights[1] or not costs.weights[2]:
        raise SasvError(
            f"cost model {costs.name}: a three-way verdict needs a cost of accepted nontargets and "
            "a cost of accepted spoofs; choose another one with --costs"
        )
    cm_scores = columns[CM_SCORE]
    scores = without_axis(columns[SCORE], cm_scores) if spoof_axis else columns[SCORE]
    bandwidths = None
    if BANDWIDTH in columns and ENROLMENT_BANDWIDTH in columns:
        bandwidths = Bandwidths(
            columns[BANDWIDTH][bona_fide], columns[ENROLMENT_BANDWIDTH][bona_fide]
        )
    speaker, narrow = fit_speaker(scores[bona_fide], labels[bona_fide], bandwidths, before)
    classes = np.where(bona_fide, TARGET, SPOOF)
    spoof = fit_linear({CM_SCORE: cm_scores}, classes, EVEN)
    for part, column in parts_of(speaker, narrow, spoof):
        if part.weights[0] <= 0:
            raise SasvError(
                f"{source}: a higher {column} does not mean a more likely target there; check the "
                "score file"
            )
    ranges = {
        name: KnownRange(*map(float, (values.min(), values.max(), values.std())))
        for name, values in columns.items()
        if name in (CM_SCORE, NORM)
    }
    bound = float(np.log1p(min((classes == TARGET).sum(), (classes == SPOOF).sum())))
    share = held_out_share(cm_scores, classes, np.asarray(groups), bound)
    plain = {name: vars(one) for name, one in ranges.items()}
    return ThreeWay(speaker, spoof, share, bound, plain, costs, source, spoof_axis, narrow)


def parts_of(speaker: Linear, narrow: NarrowBand | None, spoof: Linear) -> list[tuple[Linear, str]]:
    """Return the linear parts of a calibration, each with the column that it maps."""
    lines = [speaker]
    if narrow is not None:
        lines += narrow.lines.values()
    return [*((line, SCORE) for line in lines), (spoof, CM_SCORE)]


def without_axis(scores: np.ndarray, cm_scores: np.ndarray) -> np.ndarray:
    """Return the cosines in the dimensions of the speaker, given those in all dimensions. Enrolment
    speech is bona fide and therefore has no component along the spoof axis.
    """
    found: np.ndarray = scores / np.sqrt(np.maximum(1 - np.square(cm_scores), 1e-6))
    return found


def held_out_share(
    cm_scores: np.ndarray, classes: np.ndarray, groups: np.ndarray, bound: float
) -> float:
    """Return the factor in [0, 1] by which a spoof LLR has to be multiplied for a group that was
    not in the fit.

    Each attack, and each condition of bona fide speech, is left out once, and the LLR is fitted to
    the rest. The factor is the one with the lowest cross-entropy over the groups left out. It is 0
    if the LLR is worse than no information for new groups. A class with a single group is never
    left out.

    Args:
        cm_scores: (trials,).
        classes: (trials,) 0 bona fide, 2 spoofed.
        groups: (trials,) names.
        bound: maximum absolute value of the LLR.
    """
    losses = []
    for kind in (TARGET, SPOOF):
        names = np.unique(groups[classes == kind])
        if len(names) < 2:
            continue
        of_groups = []
        for name in names:
            out = (classes == kind) & (groups == name)
            part = fit_linear({CM_SCORE: cm_scores[~out]}, classes[~out], EVEN)
            llrs = np.clip(part({CM_SCORE: cm_scores[out]}), -bound, bound)
            signed = llrs if kind == TARGET else -llrs
            of_groups.append(np.logaddexp(0, -np.outer(SHARES, signed)).mean(axis=1))
        losses.append(np.mean(of_groups, axis=0))
    return float(SHARES[np.sum(losses, axis=0).argmin()]) if losses else 1.0
