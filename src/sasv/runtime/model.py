"""An exported model (``sasv export``), run by ONNX Runtime. PyTorch is not needed."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sasv.core.errors import CheckpointError, SasvError
from sasv.core.onnx import new_session, onnx_runtime
from sasv.runtime.embedder import Embedder, Extraction, padded_batch
from sasv.runtime.record import CM_SCORE, EMBEDDING, KEY, LENGTHS, SAMPLES, Record
from sasv.scores import ThreeClass

SUFFIX = ".onnx"


class OnnxModel(Embedder):
    """An exported model with its specification.

    Attributes:
        record: the metadata of the file.
        session: the session of ONNX Runtime; several threads may run it at the same time.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        threads: int = 0,
        extraction: Extraction | None = None,
    ):
        """Load an exported model.

        Args:
            path: file that ``sasv export`` wrote.
            threads: number of threads for each call; 0 means one for each core.
            extraction: how an utterance becomes an embedding; by default, as the specification
                says.

        Raises:
            CheckpointError: the file does not exist, or was not exported by sasv.
            MissingExtra: ONNX Runtime is not installed.
        """
        self.name = os.fspath(path)
        self.session = _session(self.name, threads)
        self.record = _record(self.session, self.name)
        self.specification = self.record.specification
        self.extraction = extraction or Extraction.of(self.specification.scoring)
        self.outputs = [output.name for output in self.session.get_outputs()]

    @property
    def dimension(self) -> int:
        """Dimension of the embeddings."""
        return self.record.dimension

    @property
    def fingerprint(self) -> str:
        """Digest of the model that was exported, the same as that of its checkpoint."""
        return self.record.fingerprint

    @property
    def scores_spoofing(self) -> bool:
        """Whether the model computes a countermeasure score."""
        return CM_SCORE in self.outputs

    def three_class(self) -> ThreeClass | None:
        """Return the classes by which a model with the three-class loss decides, or None for
        another model.
        """
        return self.record.three_class

    def embed_whole(self, waves: Sequence[np.ndarray]) -> np.ndarray:
        """Embed checked waveforms of any lengths in one batch: float32 (files, dimension), equal to
        single calls.
        """
        return run_session(self.session, waves, [EMBEDDING])[0]

    def bona_fide_scores(self, waves: Sequence[np.ndarray]) -> np.ndarray:
        """Compute the countermeasure scores of checked waveforms: float32 (files,), higher for bona
        fide speech.

        Raises:
            SasvError: the model was trained without spoofed speech.
        """
        if not self.scores_spoofing:
            raise SasvError(
                f"{self.name}: the model was trained without spoofed speech, so it has no "
                "countermeasure score"
            )
        return run_session(self.session, waves, [CM_SCORE])[0]


def run_session(
    session: Any, waves: Sequence[np.ndarray], outputs: Sequence[str]
) -> list[np.ndarray]:
    """Run an exported model on waveforms of any lengths in one batch; return its outputs."""
    batch, lengths = padded_batch(waves)
    found: list[np.ndarray] = session.run(list(outputs), {SAMPLES: batch, LENGTHS: lengths})
    return found


def _session(path: str, threads: int) -> Any:
    if not Path(path).is_file():
        raise CheckpointError(f"{path}: there is no such file; check the path")
    onnx_runtime()
    try:
        return new_session(path, threads)
    except Exception as error:  # the errors of ONNX Runtime have no common base class
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path}: ONNX Runtime cannot load it ({reason}); make it with sasv export"
        ) from error


def _record(session: Any, path: str) -> Record:
    text = session.get_modelmeta().custom_metadata_map.get(KEY)
    inputs = {one.name for one in session.get_inputs()}
    if text is None or not {SAMPLES, LENGTHS} <= inputs:
        raise CheckpointError(
            f"{path}: this file was not exported by sasv; make an ONNX file with sasv export"
        )
    return Record.from_json(text, path)
