"""Quality measures of a trial as side information for calibration, such as the amount of speech and
the norm of the embedding.
"""

from collections.abc import Sequence

import numpy as np

QUALITY = ("log_seconds", "log_enrolments", "norm")


def quality_measures(
    seconds: np.ndarray, enrolments: np.ndarray, vectors: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the measures of trials by name, (trials,) each.

    Args:
        seconds: (trials,) length of the test utterance.
        enrolments: (trials,) number of enrolment utterances.
        vectors: (trials, dimension), raw embedding of the test utterance; its norm is the third
            measure.
    """
    values: Sequence[np.ndarray] = (
        np.log(np.maximum(seconds, 1e-3)),
        np.log(enrolments),
        np.linalg.norm(vectors, axis=1).astype(np.float64),
    )
    return dict(zip(QUALITY, values))
