"""Length normalisation: embeddings as unit vectors."""

import numpy as np

TINY = 1e-12
"""Vectors with a smaller norm have no direction and are left unchanged."""


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return length-normalised vectors, (..., dimension), in the same dtype.

    Args:
        vectors: (..., dimension). A zero vector stays zero, so that its inner products are zero and
            not NaN.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(lengths, TINY).astype(vectors.dtype)


def without_direction(vectors: np.ndarray) -> np.ndarray:
    """Return which vectors, (..., dimension), cannot be compared, because they are zero or not
    finite: bool (...).
    """
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(vectors, axis=-1)
    return ~np.isfinite(lengths) | (lengths <= TINY)
