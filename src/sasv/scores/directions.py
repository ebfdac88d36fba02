"""Embeddings as directions: vectors of length one."""

import numpy as np

TINY = 1e-12
"""Shorter vectors have no direction; they are left as they are."""


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors divided by their lengths, (..., dimension), in the same dtype.

    Args:
        vectors: (..., dimension). A vector of length zero stays zero, so its products are zero, not
            NaN.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(lengths, TINY).astype(vectors.dtype)


def without_direction(vectors: np.ndarray) -> np.ndarray:
    """Return which vectors cannot be compared, bool (...): not finite, or of length zero."""
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(vectors, axis=-1)
    return ~np.isfinite(lengths) | (lengths <= TINY)
