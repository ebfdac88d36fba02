"""Aligns the trials of two systems, whatever their order in each score file."""

from typing import Any

import numpy as np

from sasv.core.errors import SasvError, listed
from sasv.evaluation.measuring import MeasureSettings, measure_of, resampled_speakers
from sasv.metrics import paired_test
from sasv.tables import Scores

REPEATS = 1000
"""Number of bootstrap samples of a paired test if the settings request no intervals."""


def compare(first: Scores, second: Scores, settings: MeasureSettings) -> dict[str, dict[str, Any]]:
    """Return the paired test of two systems: metric -> first, second, interval of second - first,
    p-value.

    Raises:
        SasvError: the trials or their labels differ.
    """
    rows = aligned(first, second)
    if (first.labels != second.labels[rows]).any():
        at = int(np.argmax(first.labels != second.labels[rows]))
        trial = f"{first.table.text('speaker', at)} {first.table.text('utterance', at)}"
        raise SasvError(
            f"{second.table.name}: the label of the trial {trial} differs from that in "
            f"{first.table.name}; use the same key for both"
        )
    speakers = resampled_speakers(first, settings.resample)
    found = paired_test(
        measure_of(first, settings),
        measure_of(second, settings, rows),
        speakers,
        settings.repeats or REPEATS,
        seed=settings.seed,
    )
    return {name: difference._asdict() for name, difference in found.items()}


def aligned(first: Scores, second: Scores) -> np.ndarray:
    """Return the row of the second system for each trial of the first: the same speaker and
    utterance.

    Raises:
        SasvError: a system lacks trials of the other, or lists a trial more than once in another
            order.
    """
    names = ("speaker", "utterance")
    one = list(zip(*(first.table.texts(name) for name in names)))
    other = list(zip(*(second.table.texts(name) for name in names)))
    if one == other:
        return np.arange(len(one))
    places = {trial: row for row, trial in enumerate(other)}
    missing = [" ".join(trial) for trial in one if trial not in places]
    extra = set(other).difference(one)
    if missing or extra:
        lacking = listed(missing or [" ".join(trial) for trial in sorted(extra)], 3)
        where = second.table.name if missing else first.table.name
        raise SasvError(
            f"{second.table.name}: its trials are not those of {first.table.name}: {len(missing)} "
            f"are missing and {len(extra)} are new; {where} lacks {lacking}. Score both systems on "
            "the same table"
        )
    if len(set(one)) < len(one) or len(one) != len(other):
        raise SasvError(
            f"{second.table.name}: some trials occur more than once, in another order; keep one of "
            "each"
        )
    return np.array([places[trial] for trial in one], np.int64)
