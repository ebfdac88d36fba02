"""Computes the embeddings of a whole table in batches of similar length; in shards, resumable.

The plan (which files form a batch, and which batches form a chunk) depends on the table alone. A
chunk is the unit that a process computes and saves. Therefore the result is bit-identical for any
number of shards and after any interruption.
"""

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from sasv.audio import measure
from sasv.core.errors import AudioError, SasvError
from sasv.core.files import atomic_path, digest_of_bytes, read_json, write_json
from sasv.core.memory import keep_memory
from sasv.core.outputs import refuse_inside_speech
from sasv.core.progress import Progress
from sasv.embeddings.model import Model
from sasv.parallel.sharding import outstanding, parse_shard
from sasv.runtime.embedder import Extraction
from sasv.storage import absolute
from sasv.storage.identity import file_identities, identity_digest
from sasv.tables import Table, Utterances

logger = logging.getLogger("sasv")

T = TypeVar("T")

CHUNK_SECONDS = 1200.0
BATCH_SECONDS = {"cpu": 30.0, "cuda": 600.0}
"""Default amount of padded audio per batch, in seconds."""

READERS = 4

RECORD: dict[str, type | tuple[type, ...]] = {
    "signature": str,
    "settings": str,
    "crops": int,
    "crop_seconds": (int, float),
    "max_pause": (int, float, type(None)),
    "model": str,
    "precision": str,
}
"""Fields of embeddings.json; earlier versions wrote fewer."""


@dataclass
class Embeddings:
    """Embeddings of utterances.

    Attributes:
        vectors: float32 (utterances, dimension), raw embeddings.
        utterances: name of the utterance of each row.
        failures: utterance -> reason why it has no embedding.
        extraction: how the embeddings were made: crops, length of a crop, pauses.
        model: fingerprint of the model that made them; empty if it was not recorded.
        precision: arithmetic of the encoder, float32 or bfloat16.
    """

    vectors: np.ndarray
    utterances: list[str]
    failures: dict[str, str]
    extraction: Extraction = field(default_factory=Extraction)
    model: str = ""
    precision: str = "float32"

    def save(
        self,
        folder: str | Path,
        signature: str = "",
        settings: str = "",
        files: Sequence[str] | None = None,
    ) -> None:
        """Write ``embeddings.npy`` and its ``index.tsv`` (row, utterance), and ``failed.tsv`` if
        there were failures.

        ``embeddings.json``, which marks the folder as complete, is removed first and written last.

        Args:
            folder: the output folder.
            signature: digest of the whole job.
            settings: digest of the model and of the settings for embedding.
            files: digest of the file of each row.
        """
        folder = Path(folder)
        (folder / "embeddings.json").unlink(missing_ok=True)
        with atomic_path(folder / "embeddings.npy") as temporary:
            np.save(temporary, self.vectors)
        columns: dict[str, Sequence[object]] = {
            "row": range(len(self.utterances)),
            "utterance": self.utterances,
        }
        if files is not None:
            columns["file"] = files
        Table.build(columns).save(folder / "index.tsv")
        failed = folder / "failed.tsv"
        failed.unlink(missing_ok=True)
        if self.failures:
            reasons = [" ".join(reason.split()) for reason in self.failures.values()]
            Table.build({"utterance": list(self.failures), "reason": reasons}).save(failed)
        about = {
            "signature": signature,
            "settings": settings,
            "shape": list(self.vectors.shape),
            "crops": self.extraction.crops,
            "crop_seconds": self.extraction.crop_seconds,
            "max_pause": self.extraction.max_pause,
            "model": self.model,
            "precision": self.precision,
        }
        write_json(folder / "embeddings.json", about)

    @classmethod
    def load(cls, folder: str | Path) -> "Embeddings":
        """Read embeddings that ``save`` wrote."""
        folder = Path(folder)
        try:
            vectors = np.load(folder / "embeddings.npy", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise SasvError(
                f"{folder}/embeddings.npy: cannot be read ({error}); run sasv embed again"
            ) from error
        index = Table.load(folder / "index.tsv")
        index.require("utterance")
        if len(index) != len(vectors):
            raise SasvError(
                f"{folder}: contains {len(vectors)} embeddings, but {len(index)} rows in "
                "index.tsv; run sasv embed again"
            )
        failed = folder / "failed.tsv"
        failures: dict[str, str] = {}
        if failed.exists():
            table = Table.load(failed)
            failures = dict(zip(table.texts("utterance"), table.texts("reason")))
        about = read_json(
            folder / "embeddings.json", optional=RECORD, remedy="run sasv embed again"
        )
        known = {
            name: about[name] for name in ("crops", "crop_seconds", "max_pause") if name in about
        }
        return cls(
            vectors,
            index.texts("utterance"),
            failures,
            Extraction(**known),
            about.get("model", ""),
            about.get("precision", "float32"),
        )


def plan_batches(seconds: np.ndarray, batch_seconds: float) -> list[np.ndarray]:
    """Group rows of similar length, so that no padded batch (longest utterance times number of
    utterances) exceeds ``batch_seconds``.
    """
    batches: list[np.ndarray] = []
    order = np.argsort(seconds, kind="stable")[::-1]
    position = 0
    while position < len(order):
        longest = max(float(seconds[order[position]]), 0.01)
        count = max(1, int(batch_seconds / longest))
        batches.append(order[position : position + count])
        position += count
    return batches


def plan_chunks(batches: Sequence[np.ndarray], seconds: np.ndarray) -> list[list[np.ndarray]]:
    """Group consecutive batches into chunks of about twenty minutes of speech."""
    chunks: list[list[np.ndarray]] = [[]]
    total = 0.0
    for batch in batches:
        if total >= CHUNK_SECONDS:
            chunks.append([])
            total = 0.0
        chunks[-1].append(batch)
        total += float(seconds[batch].sum())
    return [chunk for chunk in chunks if chunk]


def utterance_seconds(utterances: Utterances) -> np.ndarray:
    """Return the lengths in seconds from the table, or from the headers of the files if the table
    does not contain them; 0 if a header is invalid.
    """
    if utterances.seconds is not None:
        return utterances.seconds

    def length(row: int) -> float:
        try:
            return measure(utterances.path(row)).seconds
        except SasvError:
            return 0.0

    with ThreadPoolExecutor(READERS) as pool:
        return np.fromiter(pool.map(length, range(len(utterances))), np.float64, len(utterances))


def embed_rows(
    model: Model, utterances: Utterances, batches: Sequence[np.ndarray], progress: Progress
) -> tuple[dict[int, np.ndarray], dict[int, str]]:
    """Embed batches of rows; return (row -> embedding, row -> reason of failure). Threads read the
    next files in advance.
    """
    vectors: dict[int, np.ndarray] = {}
    failures: dict[int, str] = {}

    def read(row: int) -> np.ndarray | AudioError:
        try:
            return model.read(utterances.path(row), channel=utterances.channel(row))
        except AudioError as error:
            return error

    with ThreadPoolExecutor(READERS) as pool:
        for batch, waves in _ahead(pool, read, batches):
            good = []
            for row, wave in zip(batch, waves):
                if isinstance(wave, AudioError):
                    failures[int(row)] = str(wave)
                else:
                    good.append((int(row), wave))
            if good:
                embedded = model.embed_many([wave for _, wave in good])
                for (row, _), vector in zip(good, embedded):
                    if np.isfinite(vector).all():
                        vectors[row] = vector
                    else:
                        failures[row] = f"{utterances.path(row)}: the embedding is not finite"
            progress.add(len(batch))
    return vectors, failures


def _ahead(
    pool: ThreadPoolExecutor, read: Callable[[int], T], batches: Sequence[np.ndarray]
) -> Iterator[tuple[np.ndarray, list[T]]]:
    """Yield (batch, results of ``read`` for its rows) while the next batch is being read."""
    waiting = None
    for batch in batches:
        coming = (batch, [pool.submit(read, int(row)) for row in batch])
        if waiting is not None:
            yield waiting[0], [future.result() for future in waiting[1]]
        waiting = coming
    if waiting is not None:
        yield waiting[0], [future.result() for future in waiting[1]]


def embed_table(
    model: Model, utterances: Utterances, batch_seconds: float = 0.0, quiet: bool = True
) -> Embeddings:
    """Embed all rows in memory, in one process. See ``extract`` for a job that is saved step by
    step.
    """
    keep_memory()
    seconds = utterance_seconds(utterances)
    batch_seconds = batch_seconds or BATCH_SECONDS.get(model.device.type, 60.0)
    with Progress("embed", len(utterances), quiet=quiet) as progress:
        vectors, failures = embed_rows(
            model, utterances, plan_batches(seconds, batch_seconds), progress
        )
    return _collect(utterances, vectors, failures, model)


def extract(
    model: Model,
    utterances: Utterances,
    out: str | Path,
    batch_seconds: float = 0.0,
    shard: str = "",
    quiet: bool = False,
    join: bool = True,
) -> Embeddings | None:
    """Embed a table into a folder, computing only what is missing.

    Embeddings of an earlier run are kept if the file (real path, size, date), the model, and the
    settings are the same. Failed utterances are tried again.

    Args:
        model: a loaded model.
        utterances: the utterances to embed; with a column ``seconds``, the headers of the files are
            not read.
        out: folder for ``embeddings.npy``, ``index.tsv``, ``failed.tsv``.
        batch_seconds: padded audio per batch, in seconds; 0 uses the default for the device.
        shard: ``i/n``, or empty to use the rank from torchrun.
        quiet: show no progress.
        join: join the parts if all are finished; otherwise, another process has to do it.

    Returns:
        All embeddings if all parts are finished, or None while other shards are still working.
    """
    keep_memory()
    refuse_inside_speech(out, utterances.paths)
    out = Path(out)
    batch_seconds = batch_seconds or BATCH_SECONDS.get(model.device.type, 60.0)
    settings = _settings(model)
    files = file_digests(utterances)
    signature = _digest(settings, *utterances.ids, *files)
    kept = _kept_rows(out, settings, utterances.ids, files)
    wanted = np.array([row for row in range(len(utterances)) if row not in kept], np.int64)
    if not len(wanted) and _mark(out).get("signature") == signature:
        logger.info(f"{out}: already complete, nothing to do")
        _clear_parts(out)
        return Embeddings.load(out)
    if kept:
        logger.info(
            f"{out}: {len(kept)} of {len(utterances)} embeddings exist already; computing the "
            "others"
        )
    seconds = utterance_seconds(utterances.take(wanted))
    work = _digest(signature, str(batch_seconds), wanted.tobytes(), seconds.tobytes())
    parts = out / f"parts-{work[:12]}"
    index, count = parse_shard(shard)
    batches = [wanted[batch] for batch in plan_batches(seconds, batch_seconds)]
    lengths = np.zeros(len(utterances))
    lengths[wanted] = seconds
    chunks = plan_chunks(batches, lengths)
    mine, todo = outstanding(
        len(chunks), index, count, lambda number: _part(parts, number).exists()
    )
    if len(todo) < len(mine):
        others = "; computing the others" if todo else ""
        logger.info(f"{out}: {len(mine) - len(todo)} of {len(mine)} parts exist already{others}")
    total = sum(len(batch) for number in todo for batch in chunks[number])
    with Progress("embed", total, quiet=quiet or not todo) as progress:
        for number in todo:
            vectors, failures = embed_rows(model, utterances, chunks[number], progress)
            with atomic_path(_part(parts, number)) as temporary:
                stacked = (
                    np.stack(list(vectors.values()))
                    if vectors
                    else np.zeros((0, model.dimension), np.float32)
                )
                np.savez(
                    temporary,
                    rows=np.array(list(vectors), np.int64),
                    vectors=stacked,
                    failures=np.array(json.dumps(failures)),
                )
    if not join:
        return None
    if not all(_part(parts, number).exists() for number in range(len(chunks))):
        logger.info(
            f"{out}: shard {index + 1}/{count} is done; the last shard to finish joins the parts"
        )
        return None
    try:
        vectors, failures = _join(parts, len(chunks))
    except FileNotFoundError:  # another shard finished at the same time and joined them
        return Embeddings.load(out)
    if kept:
        old = Embeddings.load(out)
        rows = {name: row for row, name in enumerate(old.utterances)}
        vectors |= {row: old.vectors[rows[utterances.ids[row]]] for row in kept}
    if len(vectors) + len(failures) != len(utterances):
        raise SasvError(
            f"{out}: {len(vectors)} embeddings and {len(failures)} failures of {len(utterances)} "
            "utterances, so another run has changed the folder; run the same command again"
        )
    result = _collect(utterances, vectors, failures, model)
    result.model = model.fingerprint
    made_of = dict(zip(utterances.ids, files))
    result.save(out, signature, settings, [made_of[name] for name in result.utterances])
    _clear_parts(out)
    return result


def _settings(model: Model) -> str:
    """Return a digest of everything, except the file, that determines an embedding."""
    made = model.extraction
    specification = model.specification
    parts = [
        "2",
        model.fingerprint,
        f"{specification.frontend} {sorted(specification.frontend_options.items())}",
        f"{specification.sample_rate} {specification.min_samples}",
        f"{made.max_seconds} {made.max_pause} {made.channel}",
        f"{made.crops} {made.crop_seconds}" if made.crops else "",
    ]
    # The default is not part of the digest, so that embeddings of earlier versions remain valid.
    if model.precision != "float32":
        parts.append(model.precision)
    return _digest(*parts)


def file_digests(utterances: Utterances) -> list[str]:
    """Return a digest of the input of each row: its file (real path, size, date) and channel."""
    codes, names = utterances.channels
    paths = [absolute(path) for path in utterances.paths]
    return [
        identity_digest(identity, names[code])
        for identity, code in zip(file_identities(paths), codes.tolist())
    ]


def _digest(*parts: str | bytes) -> str:
    encoded = (
        part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part for part in parts
    )
    return digest_of_bytes(*(len(part).to_bytes(8, "little") + part for part in encoded))


def _mark(out: Path) -> dict[str, Any]:
    """Return the record of a finished folder, or an empty one if the folder is not finished or its
    record is invalid.
    """
    try:
        about: dict[str, Any] = read_json(out / "embeddings.json", optional=RECORD)
    except SasvError:
        return {}
    return about


def _kept_rows(out: Path, settings: str, names: Sequence[str], files: Sequence[str]) -> set[int]:
    """Return the rows with an embedding by an earlier run, computed from the same file in the same
    way.
    """
    if _mark(out).get("settings") != settings:
        return set()
    try:
        index = Table.load(out / "index.tsv")
        index.require("utterance", "file")
        count = len(np.load(out / "embeddings.npy", mmap_mode="r", allow_pickle=False))
    except (SasvError, OSError, ValueError, EOFError):
        return set()
    if count != len(index):
        return set()
    there = dict(zip(index.texts("utterance"), index.texts("file")))
    return {row for row, (name, file) in enumerate(zip(names, files)) if there.get(name) == file}


def _clear_parts(out: Path) -> None:
    """Remove the parts that this run and earlier ones saved."""
    for folder in out.glob("parts-*"):
        for path in [*folder.glob("*.npz"), *folder.glob(".*.part.npz")]:
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folder.rmdir()


def _join(parts: Path, count: int) -> tuple[dict[int, np.ndarray], dict[int, str]]:
    """Read all parts; return (row -> embedding, row -> reason of failure)."""
    vectors: dict[int, np.ndarray] = {}
    failures: dict[int, str] = {}
    for number in range(count):
        with np.load(_part(parts, number), allow_pickle=False) as part:
            vectors.update(zip(part["rows"].tolist(), part["vectors"]))
            failures.update(
                {int(row): reason for row, reason in json.loads(str(part["failures"])).items()}
            )
    return vectors, failures


def _part(parts: Path, number: int) -> Path:
    return parts / f"{number:06}.npz"


def _collect(
    utterances: Utterances, vectors: dict[int, np.ndarray], failures: dict[int, str], model: Model
) -> Embeddings:
    rows = sorted(vectors)
    stacked = (
        np.stack([vectors[row] for row in rows])
        if rows
        else np.zeros((0, model.dimension), np.float32)
    )
    names = utterances.ids
    failed = {names[row]: failures[row] for row in sorted(failures)}
    kept = [names[row] for row in rows]
    return Embeddings(stacked, kept, failed, model.extraction, precision=model.precision)
