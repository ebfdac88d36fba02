"""The exact search for a voice among the voiceprints of a store, in memory."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from sasv.core.errors import SasvError
from sasv.runtime.verifier import Voiceprint
from sasv.scores import unit
from sasv.store.record import Stored


def direction_of(voiceprint: Voiceprint) -> np.ndarray:
    """Return the direction of the mean embedding: float32 (dimension,), of norm 1."""
    vectors = [np.asarray(one.vector, np.float64) for one in voiceprint.recordings]
    direction: np.ndarray = unit(np.mean(vectors, axis=0)).astype(np.float32)
    return direction


def directed(vector: np.ndarray) -> np.ndarray:
    """Return the direction of an embedding: float32 (dimension,), of norm 1."""
    direction: np.ndarray = unit(np.asarray(vector, np.float64)).astype(np.float32)
    return direction


def ranked(voiceprints: Iterable[Stored], vector: np.ndarray) -> list[tuple[str, float]]:
    """Return voiceprints in the order of their cosines with an embedding: (id, cosine)."""
    direction = directed(vector)
    found = [(one.id, float(direction_of(one.voiceprint) @ direction)) for one in voiceprints]
    return sorted(found, key=lambda one: one[1], reverse=True)


class Directions:
    """The directions of all voiceprints of one tenant and one model.

    Attributes:
        state: state of the store when the directions were read.
    """

    def __init__(self) -> None:
        self.state = b""
        self._identifiers: list[str] = []
        self._versions: list[bytes] = []
        self._expires = np.zeros(0)
        self._matrix = np.zeros((0, 0), np.float32)

    def refresh(
        self,
        state: bytes,
        versions: dict[str, bytes],
        load: Callable[[Sequence[str]], Iterable[Stored]],
    ) -> None:
        """Update the directions. Only new or changed voiceprints are read.

        Args:
            state: current state of the store.
            versions: identifier -> something that differs after each change, for all
                voiceprints.
            load: reads voiceprints.
        """
        kept = [
            row
            for row, (identifier, version) in enumerate(zip(self._identifiers, self._versions))
            if versions.get(identifier) == version
        ]
        known = {self._identifiers[row] for row in kept}
        identifiers = [self._identifiers[row] for row in kept]
        ends = list(self._expires[kept])
        added = []
        for stored in load([identifier for identifier in versions if identifier not in known]):
            identifiers.append(stored.id)
            ends.append(np.inf if stored.expires is None else stored.expires)
            added.append(direction_of(stored.voiceprint))
        matrix = self._matrix[kept]
        if added:
            matrix = np.concatenate([matrix, added]) if kept else np.stack(added)
        self._identifiers = identifiers
        self._versions = [versions[identifier] for identifier in identifiers]
        self._expires = np.array(ends)
        self._matrix = matrix
        self.state = state

    def nearest(self, vector: np.ndarray, top: int, now: float) -> list[tuple[str, float]]:
        """Return the voiceprints with the highest cosines that have not expired: (id, cosine).

        Raises:
            SasvError: the dimension of the vector differs from theirs.
        """
        if not self._identifiers or top < 1:
            return []
        if np.shape(vector) != self._matrix.shape[1:]:
            raise SasvError(
                f"an embedding of shape {np.shape(vector)}; the voiceprints of this model have "
                f"{self._matrix.shape[1]} dimensions"
            )
        cosines = self._matrix @ directed(vector)
        cosines[self._expires <= now] = -np.inf
        top = min(top, len(cosines))
        best = np.argpartition(-cosines, top - 1)[:top]
        best = best[np.argsort(-cosines[best], kind="stable")]
        return [
            (self._identifiers[row], float(cosines[row])) for row in best if cosines[row] > -np.inf
        ]
