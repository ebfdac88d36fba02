"""Quality measures of a trial as side information for calibration, such as the amount of speech,
the norm of the embedding, and the bandwidth of the recordings.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

QUALITY = ("log_seconds", "log_enrolments", "norm")

BANDWIDTH = "bandwidth"
"""Column of the bandwidth of the tested recording, in Hz."""

ENROLMENT_BANDWIDTH = "enrolment_bandwidth"
"""Column of the bandwidth of the enrolment, in Hz."""


class Bandwidths(NamedTuple):
    """The bandwidths of the two sides of trials, in Hz; each is an array (trials,) or a number.

    An unknown bandwidth is infinite or NaN; its trial is treated as one of wide-band speech.

    Attributes:
        tested: bandwidth of the tested recording.
        enrolled: bandwidth of the enrolment (see ``enrolment_bandwidth``).
    """

    tested: np.ndarray
    enrolled: np.ndarray


def enrolment_bandwidth(bandwidths: Sequence[float | None]) -> float:
    """Return the bandwidth of an enrolment, in Hz: that of most of its recordings. It is the
    median of their bandwidths, and with an even number the higher one of the two in the middle.

    Args:
        bandwidths: bandwidth of each enrolment recording; unknown ones (None, or NaN) are
            infinite, and so is the result for no recordings.
    """
    known = [np.inf if one is None or np.isnan(one) else float(one) for one in bandwidths]
    return sorted(known)[len(known) // 2] if known else np.inf


def quality_measures(
    seconds: np.ndarray, enrolments: np.ndarray, vectors: np.ndarray
) -> dict[str, np.ndarray]:
    """Return quality measures of trials: name -> (trials,).

    Args:
        seconds: (trials,) length of the test utterance in seconds.
        enrolments: (trials,) number of enrolment utterances.
        vectors: (trials, dimension), raw embeddings of the test utterances, whose norm is the third
            measure.
    """
    values: Sequence[np.ndarray] = (
        np.log(np.maximum(seconds, 1e-3)),
        np.log(enrolments),
        np.linalg.norm(vectors, axis=1).astype(np.float64),
    )
    return dict(zip(QUALITY, values))
