"""Measures the bandwidth of the recordings of a table, each once."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from sasv.core.errors import AudioError, SasvError
from sasv.core.progress import Progress
from sasv.embeddings.extract import READERS, file_digests
from sasv.runtime.embedder import Embedder
from sasv.tables import NONE, Table, Utterances


def bandwidths(
    model: Embedder, utterances: Utterances, path: Path, quiet: bool = False
) -> np.ndarray:
    """Return the bandwidth of each utterance in Hz, (utterances,); NaN if it contains no speech or
    cannot be read.

    Args:
        model: reads the recordings as for an embedding, but with their pauses.
        utterances: the recordings.
        path: table of what was measured, which is written. The values that it contains are used
            for files that have not changed since.
        quiet: show no progress.
    """
    digests = file_digests(utterances)
    known = _known(path)
    missing = [row for row, digest in enumerate(digests) if digest not in known]

    def measured(row: int) -> float:
        try:
            found = model.bandwidth(utterances.path(row), utterances.channel(row))
        except AudioError:
            return float("nan")
        return float("nan") if found is None else found

    if missing:
        with (
            Progress("bandwidth", len(missing), quiet=quiet) as progress,
            ThreadPoolExecutor(READERS) as pool,
        ):
            for row, value in zip(missing, pool.map(measured, missing)):
                known[digests[row]] = value
                progress.add()
        values = [known[digest] for digest in digests]
        cells = [NONE if np.isnan(value) else f"{value:.9g}" for value in values]
        columns = {"utterance": utterances.ids, "file": digests, "bandwidth": cells}
        Table.build(columns).save(path)
    return np.array([known[digest] for digest in digests], np.float64)


def _known(path: Path) -> dict[str, float]:
    """Return what an earlier run measured: digest of a file -> bandwidth in Hz. A table that cannot
    be read is ignored, and made anew.
    """
    if not path.exists():
        return {}
    try:
        table = Table.load(path)
        table.require("file", "bandwidth")
        cells = zip(table.texts("file"), table.texts("bandwidth"))
        return {file: float("nan" if cell == NONE else cell) for file, cell in cells}
    except (SasvError, ValueError, OSError):
        return {}
