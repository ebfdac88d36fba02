"""Log-likelihood ratios of the speaker for narrow-band speech, such as that of a telephone, and for
speech of a medium bandwidth, such as MP3 at a low bit rate. Their scores are lower than those of
wide-band speech, for targets and for nontargets.
"""

from dataclasses import dataclass, replace

import numpy as np

from sasv.calibration.backend import Linear, fit_linear
from sasv.core.errors import SasvError
from sasv.metrics.curve import NONTARGET, TARGET
from sasv.scores.quality import Bandwidths

SCORE = "score"
NARROW_HZ = 5300.0
"""Speech without frequencies above this one is narrow-band. That of a telephone, sampled at 8 kHz,
has none above 4 kHz, and some noise of the codec or of resampling above it; Opus at its lowest bit
rate keeps up to 5.25 kHz.
"""
MEDIUM_HZ = 6200.0
"""Speech without frequencies above this one, but above NARROW_HZ, has a medium bandwidth, such as
MP3 of 16 or 24 kbit/s (5.6 and 5.9 kHz), or a sample rate of 11 or 12 kHz.
"""

LEAST_TRIALS = 20
"""Minimum number of targets, and of nontargets, to which a log-likelihood ratio is fitted."""

WIDE, ONE, BOTH, MEDIUM = range(4)
"""Kinds of trials: of wide-band speech; with one narrow-band side, or two; with a side of medium
bandwidth, or two, but none that is narrow-band.
"""


@dataclass(frozen=True)
class NarrowBand:
    """Maps the column ``score`` to the log-likelihood ratio of the speaker for speech that is not
    wide-band.

    A line that is None had too few trials for a fit; such trials are treated as wide-band speech.

    Attributes:
        below: speech of a lower bandwidth than this, in Hz, is narrow-band.
        one: for trials of which one side, the enrolment or the tested recording, is narrow-band.
        both: the same for trials of which both sides are narrow-band.
        medium_below: speech of a lower bandwidth than this, in Hz, has a medium bandwidth if it is
            not narrow-band; None if no speech has.
        medium: for trials of which no side is narrow-band, but at least one has a medium bandwidth.
    """

    below: float
    one: Linear | None = None
    both: Linear | None = None
    medium_below: float | None = None
    medium: Linear | None = None

    def __post_init__(self) -> None:
        valid = 0 < self.below < np.inf
        if self.medium_below is not None:
            valid = valid and self.below <= self.medium_below < np.inf
        elif self.medium is not None:
            valid = False
        if not valid:
            raise SasvError("the calibration for narrow-band speech has an invalid bandwidth")

    @property
    def lines(self) -> dict[int, Linear]:
        """Kind of a trial -> how its scores are mapped."""
        found = {ONE: self.one, BOTH: self.both, MEDIUM: self.medium}
        return {kind: line for kind, line in found.items() if line is not None}

    def speaker(self, wide: Linear, scores: np.ndarray, bandwidths: Bandwidths) -> np.ndarray:
        """Return the log-likelihood ratios of the speaker, of the shape of the scores.

        Args:
            wide: maps the scores of wide-band speech.
            scores: (trials,), or a number.
            bandwidths: of both sides of these trials.
        """
        kinds = kinds_of(bandwidths, self.below, self.medium_below or 0.0)
        found: np.ndarray = wide({SCORE: scores})
        for kind, line in self.lines.items():
            found = np.where(kinds == kind, line({SCORE: scores}), found)
        return found


def kinds_of(bandwidths: Bandwidths, below: float, medium_below: float) -> np.ndarray:
    """Return the kind of each trial, WIDE, ONE, BOTH, or MEDIUM, for these bounds in Hz.

    It is WIDE if one of the bandwidths is unknown: trials of two narrow-band sides score higher
    than those of one, so that another speaker could be accepted if an unknown side were taken for
    wide-band.
    """
    both = np.stack([np.asarray(one, np.float64) for one in bandwidths])
    found = (both < below).sum(axis=0)
    found = np.where((found == 0) & (both < medium_below).any(axis=0), MEDIUM, found)
    known: np.ndarray = np.where(np.isfinite(both).all(axis=0), found, WIDE)
    return known


def fit_speaker(
    scores: np.ndarray,
    labels: np.ndarray,
    bandwidths: Bandwidths | None,
    before: NarrowBand | None = None,
) -> tuple[Linear, NarrowBand | None]:
    """Fit the log-likelihood ratio of target against nontarget trials.

    Each kind of trials that are not wide-band has a fit of its own if there are enough of them and
    enough wide-band ones. All others are fitted together.

    Args:
        scores: (trials,) of bona fide speech.
        labels: (trials,) 0 target, 1 nontarget.
        bandwidths: of both sides of the trials; None fits all trials together.
        before: an earlier calibration, for kinds with too few trials (see ``completed``).

    Returns:
        The fit for wide-band speech, and that for other speech or None.
    """

    def line(rows: np.ndarray) -> Linear:
        return fit_linear({SCORE: scores[rows]}, labels[rows], {TARGET: 0.5, NONTARGET: 0.5})

    everything = np.ones(len(labels), bool)
    if bandwidths is None:
        return line(everything), None
    kinds = kinds_of(bandwidths, NARROW_HZ, MEDIUM_HZ)
    fitted = [kind for kind in (WIDE, ONE, BOTH, MEDIUM) if enough(labels[kinds == kind])]
    if len(fitted) < 2 or WIDE not in fitted:
        return line(everything), completed(None, before, labels, bandwidths)
    own = {kind: line(kinds == kind) for kind in fitted if kind != WIDE}
    wide = line(~np.isin(kinds, list(own)))
    new = NarrowBand(NARROW_HZ, own.get(ONE), own.get(BOTH), MEDIUM_HZ, own.get(MEDIUM))
    return wide, completed(new, before, labels, bandwidths)


def completed(
    fitted: NarrowBand | None,
    before: NarrowBand | None,
    labels: np.ndarray,
    bandwidths: Bandwidths,
) -> NarrowBand | None:
    """Return a new calibration with the lines of an earlier one for kinds of trials that were too
    few for a fit.

    The most frequent kind determined the line that was fitted to all other trials, so that it does
    not need the earlier line. An earlier calibration with other bounds is not used.

    Args:
        fitted: the new one; None if all of its trials were fitted together.
        before: the earlier one.
        labels: (trials,) of bona fide speech, 0 target, 1 nontarget.
        bandwidths: of both sides of these trials.
    """
    if before is None or (before.below, before.medium_below) != (NARROW_HZ, MEDIUM_HZ):
        return fitted
    kinds = kinds_of(bandwidths, NARROW_HZ, MEDIUM_HZ)
    most = np.bincount(kinds, minlength=MEDIUM + 1).argmax()
    new = fitted or NarrowBand(NARROW_HZ, medium_below=MEDIUM_HZ)

    def line(kind: int, own: Linear | None, earlier: Linear | None) -> Linear | None:
        return own if kind == most or enough(labels[kinds == kind]) else earlier

    found = replace(
        new,
        one=line(ONE, new.one, before.one),
        both=line(BOTH, new.both, before.both),
        medium=line(MEDIUM, new.medium, before.medium),
    )
    return found if found.lines else None


def enough(labels: np.ndarray) -> bool:
    """Return whether there are enough targets and nontargets for a fit."""
    counts = [int(np.count_nonzero(labels == kind)) for kind in (TARGET, NONTARGET)]
    return min(counts) >= LEAST_TRIALS
