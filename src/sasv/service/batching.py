"""Embeds the recordings of concurrent requests in batches."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import numpy as np

from sasv.runtime.embedder import Embedder
from sasv.scores import ThreeClass

WIDEST = 1.25
"""Maximum ratio of the longest to the shortest recording in a batch, because padding takes
computing time too.
"""


class BatchingModel(Embedder):
    """A model that forms batches across threads: recordings that arrive within ``wait`` seconds and
    have similar lengths are embedded together.
    """

    def __init__(
        self,
        model: Embedder,
        size: int,
        wait: float,
        seen: Callable[[int], None] = lambda recordings: None,
    ) -> None:
        """Start the thread that runs the model.

        Args:
            model: embeds the batches.
            size: maximum number of recordings in a batch.
            wait: seconds for which the first recording of a batch waits for others.
            seen: is called with the number of recordings in each batch.
        """
        self.model = model
        self.specification = model.specification
        self.name = model.name
        self.extraction = model.extraction
        self.size = size
        self.wait = wait
        self.seen = seen
        self._waiting: list[tuple[np.ndarray, Future[np.ndarray]]] = []
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="sasv-batches", daemon=True)
        self._thread.start()

    @property
    def dimension(self) -> int:
        """Dimension of the embeddings."""
        return self.model.dimension

    @property
    def fingerprint(self) -> str:
        """Digest of the model."""
        return self.model.fingerprint

    def three_class(self) -> ThreeClass | None:
        """Return the classes by which a model with the three-class loss decides, or None for
        another model.
        """
        return self.model.three_class()

    def embed_whole(self, waves: Sequence[np.ndarray]) -> np.ndarray:
        """Embed checked waveforms in batches with those of other threads."""
        futures: list[Future[np.ndarray]] = [Future() for _ in waves]
        with self._changed:
            if self._closed:
                raise RuntimeError("the model was closed")
            self._waiting += zip(waves, futures)
            self._changed.notify()
        return np.stack([future.result() for future in futures])

    def close(self) -> None:
        """Embed the waiting recordings, and stop."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next():
            waves = [wave for wave, _ in batch]
            try:
                self.seen(len(waves))
                vectors = self.model.embed_whole(waves)
            except BaseException as error:
                for _, future in batch:
                    future.set_exception(error)
            else:
                for (_, future), vector in zip(batch, vectors):
                    future.set_result(vector)

    def _next(self) -> list[tuple[np.ndarray, "Future[np.ndarray]"]]:
        """Return the next batch, or an empty one at the end."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            until = time.monotonic() + self.wait
            while len(self._waiting) < self.size and not self._closed:
                left = until - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            if not self._waiting:
                return []
            # The recording that has waited longest, with those of similar length.
            first = len(self._waiting[0][0])
            batch: list[tuple[np.ndarray, Future[np.ndarray]]] = []
            rest: list[tuple[np.ndarray, Future[np.ndarray]]] = []
            for entry in self._waiting:
                length = len(entry[0])
                fits = max(first, length) <= WIDEST * min(first, length)
                if fits and len(batch) < self.size:
                    batch.append(entry)
                else:
                    rest.append(entry)
            self._waiting = rest
            return batch
