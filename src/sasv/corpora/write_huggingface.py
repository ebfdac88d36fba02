"""Writes a table as an audio dataset of Hugging Face: Parquet files that contain the recordings."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sasv.core.files import atomic_path, locked
from sasv.core.progress import Progress
from sasv.tables import NONE, Utterances
from sasv.tables.packing import Audio, keep_record, key_of, read_ahead, sizes_of

ROWS = 100
"""Rows of a row group, as ``datasets`` writes audio."""

LABELS = ("bonafide", "spoof")
LEFT_OUT = ("path", "sha256", "split")
WORD = re.compile(r"\W+")


def write_huggingface(
    utterances: Utterances, out: Path, shard_bytes: int, audio: Audio, num_workers: int
) -> Path:
    """Write ``data/SPLIT-00000-of-00003.parquet`` and on, which ``datasets.load_dataset`` reads.

    Files that an interrupted run finished are kept.

    Args:
        utterances: the table; the column split divides it, and without one all rows are ``train``.
        out: output folder.
        shard_bytes: size of the recordings of a file, before they become FLAC.
        audio: write recordings unchanged, or as FLAC where that is lossless.
        num_workers: number of threads that read.

    Raises:
        SasvError: a recording cannot be read, or the folder contains another dataset.
    """
    sizes = np.array(sizes_of(utterances.table.name, utterances.paths, num_workers))
    with locked(out):
        keep_record(out, utterances, shard_bytes, audio)
        with (
            ThreadPoolExecutor(max(1, num_workers)) as pool,
            Progress("recordings", len(utterances)) as progress,
        ):
            for split, rows in _splits(utterances).items():
                shards = _shards(sizes[rows], shard_bytes)
                for number, shard in enumerate(shards):
                    path = out / "data" / f"{split}-{number:05}-of-{len(shards):05}.parquet"
                    own = utterances.take(rows[shard])
                    if not path.exists():
                        found = read_ahead(pool, own.paths, audio, num_workers)
                        _write(path, own, found, progress)
    return out / "data"


def _splits(utterances: Utterances) -> dict[str, np.ndarray]:
    """Return split -> rows; the names of splits consist of letters, digits, and ``_``."""
    if "split" not in utterances.table.columns:
        return {"train": np.arange(len(utterances))}
    names = [WORD.sub("_", name) for name in utterances.table.texts("split")]
    # "all" means the union of all splits to Hugging Face.
    names = ["train" if name in ("all", "_", "") else name for name in names]
    order = np.array(names)
    return {name: np.flatnonzero(order == name) for name in dict.fromkeys(names)}


def _shards(sizes: np.ndarray, shard_bytes: int) -> list[np.ndarray]:
    """Return the rows of each file: as many as fit, at least one."""
    shards: list[list[int]] = [[]]
    size = 0
    for row, own in enumerate(sizes.tolist()):
        if shards[-1] and size + own > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(row)
        size += own
    return [np.array(shard) for shard in shards]


def _write(
    path: Path, utterances: Utterances, found: Iterator[tuple[str, bytes]], progress: Progress
) -> None:
    """Write one file."""
    table = utterances.table
    features: dict[str, Any] = {"audio": {"_type": "Audio"}}
    columns: dict[str, pa.Array] = {}
    for name in table.columns:
        if name in LEFT_OUT:
            continue
        features[name] = {"dtype": "string", "_type": "Value"}
        texts = [None if text in ("", NONE) else text for text in table.texts(name)]
        columns[name] = pa.array(texts, pa.string())
        if name == "label":
            features[name] = {"names": list(LABELS), "_type": "ClassLabel"}
            columns[name] = pa.array([LABELS.index(str(text)) for text in texts], pa.int64())
        elif name == "seconds" and utterances.seconds is not None:
            features[name] = {"dtype": "float64", "_type": "Value"}
            columns[name] = pa.array(utterances.seconds, pa.float64())
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    fields = [("audio", kind), *((name, column.type) for name, column in columns.items())]
    schema = pa.schema(fields, {"huggingface": json.dumps({"info": {"features": features}})})
    keys = [key_of(name) for name in utterances.ids]
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for start in range(0, len(keys), ROWS):
            group = [_recording(key, next(found)) for key in keys[start : start + ROWS]]
            cells = [column.slice(start, ROWS) for column in columns.values()]
            writer.write_table(pa.table([pa.array(group, kind), *cells], schema=schema))
            progress.add(len(group))


def _recording(key: str, found: tuple[str, bytes]) -> dict[str, object]:
    suffix, data = found
    return {"bytes": data, "path": key.replace("/", "_") + suffix}
