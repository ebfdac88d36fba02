"""Embeddings of a whole table: length-bucketed batches, sharded, resumable.

The plan (which files form a batch, which batches a chunk) depends on the table alone. A chunk is the unit that a
process does and saves, so any number of shards, killed and started again at will, ends with the same bits.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from sasv.audio import probe
from sasv.core.errors import AudioError, SasvError
from sasv.core.files import atomic_path, read_bytes, sha256, write_json
from sasv.core.memory import keep_memory
from sasv.core.progress import Progress, say
from sasv.embeddings.model import Extraction, Model
from sasv.parallel.sharding import outstanding, parse_shard
from sasv.tables import Table, Utterances

T = TypeVar("T")

CHUNK_SECONDS = 1200.0
BATCH_SECONDS = {"cpu": 30.0, "cuda": 600.0}
"""Padded audio per batch where none is asked for."""

READERS = 4


@dataclass
class Embeddings:
    """Embeddings of utterances.

    Attributes:
        vectors: float32 (utterances, dimension), raw.
        utterances: name of each row.
        failures: utterance -> why it has none.
        extraction: how they were made: crops, length of a crop, pauses.
        model: fingerprint of the model that made them; empty where it was not recorded.
    """

    vectors: np.ndarray
    utterances: list[str]
    failures: dict[str, str]
    extraction: Extraction = field(default_factory=Extraction)
    model: str = ""

    def save(self, folder: str | Path, signature: str = "") -> None:
        """Write ``embeddings.npy`` and its ``index.tsv`` (row, utterance), and ``failed.tsv`` where some failed."""
        folder = Path(folder)
        with atomic_path(folder / "embeddings.npy") as temporary:
            np.save(temporary, self.vectors)
        Table.build({"row": range(len(self.utterances)), "utterance": self.utterances}).save(folder / "index.tsv")
        failed = folder / "failed.tsv"
        failed.unlink(missing_ok=True)
        if self.failures:
            reasons = [reason.replace("\t", " ") for reason in self.failures.values()]
            Table.build({"utterance": list(self.failures), "reason": reasons}).save(failed)
        about = {
            "signature": signature,
            "shape": list(self.vectors.shape),
            "crops": self.extraction.crops,
            "crop_seconds": self.extraction.crop_seconds,
            "max_pause": self.extraction.max_pause,
            "model": self.model,
        }
        write_json(folder / "embeddings.json", about)

    @classmethod
    def load(cls, folder: str | Path) -> "Embeddings":
        """Read what ``save`` wrote."""
        folder = Path(folder)
        try:
            vectors = np.load(folder / "embeddings.npy", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise SasvError(f"{folder}/embeddings.npy: cannot read ({error}); run sasv embed again") from error
        index = Table.load(folder / "index.tsv")
        index.require("utterance")
        if len(index) != len(vectors):
            raise SasvError(f"{folder}: {len(vectors)} embeddings, {len(index)} index rows; run sasv embed again")
        failed = folder / "failed.tsv"
        failures: dict[str, str] = {}
        if failed.exists():
            table = Table.load(failed)
            failures = dict(zip(table.texts("utterance"), table.texts("reason")))
        about = json.loads(read_bytes(folder / "embeddings.json"))
        known = {name: about[name] for name in ("crops", "crop_seconds", "max_pause") if name in about}
        return cls(vectors, index.texts("utterance"), failures, Extraction(**known), about.get("model", ""))


def plan_batches(seconds: np.ndarray, batch_seconds: float) -> list[np.ndarray]:
    """Group rows of similar length so that no padded batch exceeds ``batch_seconds`` (longest times count)."""
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
    """Lengths from the table, or from the headers where the table does not say; 0 where a header is broken."""
    if utterances.seconds is not None:
        return utterances.seconds

    def length(row: int) -> float:
        try:
            return probe(utterances.path(row)).seconds
        except SasvError:
            return 0.0

    with ThreadPoolExecutor(READERS) as pool:
        return np.fromiter(pool.map(length, range(len(utterances))), np.float64, len(utterances))


def embed_rows(
    model: Model, utterances: Utterances, batches: Sequence[np.ndarray], progress: Progress
) -> tuple[dict[int, np.ndarray], dict[int, str]]:
    """Embed batches of rows; return (row -> embedding, row -> reason of failure). Reading runs ahead in threads."""
    vectors: dict[int, np.ndarray] = {}
    failures: dict[int, str] = {}

    def read(row: int) -> np.ndarray | AudioError:
        try:
            return model.read(utterances.path(row))
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
    """Yield (batch, what ``read`` gave for its rows) while the next batch is being read."""
    waiting = None
    for batch in batches:
        coming = (batch, [pool.submit(read, int(row)) for row in batch])
        if waiting is not None:
            yield waiting[0], [future.result() for future in waiting[1]]
        waiting = coming
    if waiting is not None:
        yield waiting[0], [future.result() for future in waiting[1]]


def embed_table(model: Model, utterances: Utterances, batch_seconds: float = 0.0, quiet: bool = True) -> Embeddings:
    """Embed all rows in memory, in one process (see extract for a job that is saved as it goes)."""
    keep_memory()
    seconds = utterance_seconds(utterances)
    batch_seconds = batch_seconds or BATCH_SECONDS.get(model.device.type, 60.0)
    with Progress("embed", len(utterances), quiet=quiet) as progress:
        vectors, failures = embed_rows(model, utterances, plan_batches(seconds, batch_seconds), progress)
    return _collect(utterances, vectors, failures, model)


def extract(
    model: Model,
    utterances: Utterances,
    out: str | Path,
    batch_seconds: float = 0.0,
    shard: str = "",
    quiet: bool = False,
) -> Embeddings | None:
    """Embed a table into a folder, doing only what is not there yet.

    Args:
        model: a loaded model.
        utterances: what to embed; a column ``seconds`` saves reading every header.
        out: folder for ``embeddings.npy``, ``index.tsv``, ``failed.tsv``.
        batch_seconds: padded audio per batch; 0 takes what suits the device.
        shard: ``i/n``, or empty to take torchrun's rank.
        quiet: no progress.

    Returns:
        All embeddings where this process found the last part done, None while other shards still work.
    """
    keep_memory()
    out = Path(out)
    seconds = utterance_seconds(utterances)
    batch_seconds = batch_seconds or BATCH_SECONDS.get(model.device.type, 60.0)
    made = model.extraction
    signature = sha256(
        model.fingerprint,
        "\n".join(utterances.ids),
        "\n".join(utterances.table.texts("path")),
        seconds.tobytes(),
        f"{batch_seconds} {made.max_seconds}"
        + (f" {made.crops} {made.crop_seconds}" if made.crops else "")
        + (f" max_pause {made.max_pause}" if made.max_pause is not None else ""),
    )
    done = out / "embeddings.json"
    if done.exists() and json.loads(read_bytes(done))["signature"] == signature:
        say(f"{out}: already complete, nothing to do")
        return Embeddings.load(out)
    parts = out / f"parts-{signature[:12]}"
    index, count = parse_shard(shard)
    chunks = plan_chunks(plan_batches(seconds, batch_seconds), seconds)
    mine, todo = outstanding(len(chunks), index, count, lambda number: _part(parts, number).exists())
    if len(todo) < len(mine):
        say(f"{out}: {len(mine) - len(todo)} of {len(mine)} parts are there already; doing the others")
    total = sum(len(batch) for number in todo for batch in chunks[number])
    with Progress("embed", total, quiet=quiet) as progress:
        for number in todo:
            vectors, failures = embed_rows(model, utterances, chunks[number], progress)
            with atomic_path(_part(parts, number)) as temporary:
                stacked = np.stack(list(vectors.values())) if vectors else np.zeros((0, model.dimension), np.float32)
                np.savez(
                    temporary,
                    rows=np.array(list(vectors), np.int64),
                    vectors=stacked,
                    failures=np.array(json.dumps(failures)),
                )
    if not all(_part(parts, number).exists() for number in range(len(chunks))):
        say(f"{out}: shard {index + 1}/{count} is done; the last shard to finish joins the parts")
        return None
    try:
        vectors, failures = _join(parts, len(chunks))
    except FileNotFoundError:  # another shard finished at the same moment and joined them
        return Embeddings.load(out)
    result = _collect(utterances, vectors, failures, model)
    result.model = model.fingerprint
    result.save(out, signature)
    for number in range(len(chunks)):
        _part(parts, number).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        parts.rmdir()
    return result


def _join(parts: Path, count: int) -> tuple[dict[int, np.ndarray], dict[int, str]]:
    """Read all parts: (row -> embedding, row -> reason of failure)."""
    vectors: dict[int, np.ndarray] = {}
    failures: dict[int, str] = {}
    for number in range(count):
        with np.load(_part(parts, number), allow_pickle=False) as part:
            vectors.update(zip(part["rows"].tolist(), part["vectors"]))
            failures.update({int(row): reason for row, reason in json.loads(str(part["failures"])).items()})
    return vectors, failures


def _part(parts: Path, number: int) -> Path:
    return parts / f"{number:06}.npz"


def _collect(
    utterances: Utterances, vectors: dict[int, np.ndarray], failures: dict[int, str], model: Model
) -> Embeddings:
    rows = sorted(vectors)
    stacked = np.stack([vectors[row] for row in rows]) if rows else np.zeros((0, model.dimension), np.float32)
    names = utterances.ids
    failed = {names[row]: failures[row] for row in sorted(failures)}
    return Embeddings(stacked, [names[row] for row in rows], failed, model.extraction)
