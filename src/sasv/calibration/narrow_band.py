"""Log-likelihood ratios of the speaker for narrow-band speech, such as that of a telephone, whose
scores are lower than those of wide-band speech, for targets and for nontargets.
"""

from dataclasses import dataclass

import numpy as np

from sasv.calibration.backend import Linear, fit_linear
from sasv.core.errors import SasvError
from sasv.metrics.curve import NONTARGET, TARGET
from sasv.scores.quality import Bandwidths

SCORE = "score"
NARROW_HZ = 5000.0
"""Speech without frequencies above this one is narrow-band. That of a telephone, sampled at 8 kHz,
has none above 4 kHz, and some noise of the codec or of resampling above it; MP3 at a low bit rate
keeps 5.5 kHz.
"""

LEAST_TRIALS = 20
"""Minimum number of targets, and of nontargets, to which a log-likelihood ratio is fitted."""


@dataclass(frozen=True)
class NarrowBand:
    """Maps the column ``score`` to the log-likelihood ratio of the speaker for narrow-band speech.

    Attributes:
        below: speech of a lower bandwidth than this, in Hz, is narrow-band.
        one: for trials of which one side, the enrolment or the tested recording, is narrow-band;
            None if there were too few for a fit, so that they are treated as wide-band speech.
        both: the same for trials of which both sides are narrow-band.
    """

    below: float
    one: Linear | None = None
    both: Linear | None = None

    def __post_init__(self) -> None:
        if not 0 < self.below < np.inf:
            raise SasvError("the calibration for narrow-band speech has an invalid bandwidth")

    @property
    def lines(self) -> dict[int, Linear]:
        """Number of narrow-band sides -> how their scores are mapped."""
        found = {1: self.one, 2: self.both}
        return {sides: line for sides, line in found.items() if line is not None}

    def speaker(self, wide: Linear, scores: np.ndarray, bandwidths: Bandwidths) -> np.ndarray:
        """Return the log-likelihood ratios of the speaker, of the shape of the scores.

        Args:
            wide: maps the scores of wide-band speech.
            scores: (trials,), or a number.
            bandwidths: of both sides of these trials.
        """
        sides = narrow_sides(bandwidths, self.below)
        found: np.ndarray = wide({SCORE: scores})
        for count, line in self.lines.items():
            found = np.where(sides == count, line({SCORE: scores}), found)
        return found


def narrow_sides(bandwidths: Bandwidths, below: float = NARROW_HZ) -> np.ndarray:
    """Return how many of the two sides of each trial are narrow-band: 0, 1, or 2.

    It is 0 if one of the bandwidths is unknown: trials of two narrow-band sides score higher than
    those of one, so that another speaker could be accepted if an unknown side were taken for
    wide-band.
    """
    both = np.stack([np.asarray(one, np.float64) for one in bandwidths])
    found: np.ndarray = np.where(np.isfinite(both).all(axis=0), (both < below).sum(axis=0), 0)
    return found


def fit_speaker(
    scores: np.ndarray, labels: np.ndarray, bandwidths: Bandwidths | None
) -> tuple[Linear, NarrowBand | None]:
    """Fit the log-likelihood ratio of target against nontarget trials.

    Trials with one narrow-band side, and those with two, have a fit of their own if there are
    enough of them and enough wide-band ones. All others are fitted together.

    Args:
        scores: (trials,) of bona fide speech.
        labels: (trials,) 0 target, 1 nontarget.
        bandwidths: of both sides of the trials; None fits all trials together.

    Returns:
        The fit for wide-band speech, and that for narrow-band speech or None.
    """

    def line(rows: np.ndarray) -> Linear:
        return fit_linear({SCORE: scores[rows]}, labels[rows], {TARGET: 0.5, NONTARGET: 0.5})

    everything = np.ones(len(labels), bool)
    if bandwidths is None:
        return line(everything), None
    sides = narrow_sides(bandwidths)
    fitted = [count for count in range(3) if enough(labels[sides == count])]
    if len(fitted) < 2 or 0 not in fitted:
        return line(everything), None
    narrow = {count: line(sides == count) for count in fitted if count}
    wide = line(~np.isin(sides, list(narrow)))
    return wide, NarrowBand(NARROW_HZ, narrow.get(1), narrow.get(2))


def enough(labels: np.ndarray) -> bool:
    """Return whether there are enough targets and nontargets for a fit."""
    counts = [int(np.count_nonzero(labels == kind)) for kind in (TARGET, NONTARGET)]
    return min(counts) >= LEAST_TRIALS
