"""Quality measures of a trial as side information for calibration, such as the amount of speech and
the norm of the embedding.
"""

from collections.abc import Sequence

import numpy as np

QUALITY = ("log_seconds", "log_enrolments", "norm")


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
