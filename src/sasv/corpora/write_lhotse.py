"""Writes a table as manifests of lhotse: recordings, supervisions, and cuts."""

import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sasv.audio import AUTO, AudioInfo, measure
from sasv.core.errors import SasvError, listed
from sasv.core.files import write_bytes
from sasv.corpora.base import read_headers
from sasv.storage import absolute
from sasv.storage.locations import scheme_of, split_member
from sasv.tables import NONE, Utterances

DIRECT = ("gender", "language")
"""Columns that are fields of a supervision; the others become custom fields."""

OURS = ("utterance", "path", "speaker", "seconds", "channel", *DIRECT)


def write_lhotse(utterances: Utterances, out: Path) -> Path:
    """Write ``recordings.jsonl.gz``, ``supervisions.jsonl.gz``, and ``cuts.jsonl.gz``, which name
    the recordings where they are.

    Returns:
        The file of the cuts.

    Raises:
        SasvError: a recording is a member of a tar, which lhotse cannot name, or cannot be read.
    """
    paths = [absolute(path) for path in utterances.paths]
    packed = [path for path in paths if split_member(path)[1] is not None]
    if packed:
        raise SasvError(
            f"{utterances.table.name}: {len(packed)} recordings are members of tars ({packed[0]}), "
            "which lhotse cannot read as files; give the table from before sasv pack, or choose "
            "--format huggingface"
        )
    cuts = list(map(_cut, _rows(utterances), paths, _measured(utterances.table.name, paths)))
    _write(out / "recordings.jsonl.gz", (cut["recording"] for cut in cuts))
    _write(out / "supervisions.jsonl.gz", (cut["supervisions"][0] for cut in cuts))
    _write(out / "cuts.jsonl.gz", cuts)
    return out / "cuts.jsonl.gz"


def _measured(table: str, paths: list[str]) -> list[AudioInfo]:
    """Return the properties of all recordings."""
    infos, faults = read_headers(measure, paths)
    if faults:
        raise SasvError(
            f"{table}: {len(faults)} of {len(paths)} recordings cannot be read "
            f"({listed(faults, 3)}); fix them or drop their rows"
        )
    return infos


def _rows(utterances: Utterances) -> Iterable[dict[str, str]]:
    """Yield the rows of a table, without empty cells."""
    columns = {name: utterances.table.texts(name) for name in utterances.table.columns}
    for cells in zip(*columns.values()):
        yield {name: cell for name, cell in zip(columns, cells) if cell not in ("", NONE)}


def _cut(row: Mapping[str, str], path: str, info: AudioInfo) -> dict[str, Any]:
    """Return a row as a cut."""
    name = row["utterance"]
    channel = row.get("channel", AUTO)
    every = list(range(info.channels))
    used: int | list[int] = every if info.channels > 1 else 0
    if channel.isdigit():
        used = int(channel)
    seconds = info.samples / info.rate
    span = {"start": 0.0, "duration": seconds, "channel": used}
    supervision = {
        "id": name,
        "recording_id": name,
        **span,
        "speaker": row["speaker"],
        **{key: row[key] for key in DIRECT if key in row},
        "custom": {key: cell for key, cell in row.items() if key not in OURS},
    }
    kind = "url" if scheme_of(path) else "file"
    recording = {
        "id": name,
        "sources": [{"type": kind, "channels": every, "source": path}],
        "sampling_rate": info.rate,
        "num_samples": info.samples,
        "duration": seconds,
        "channel_ids": every,
    }
    return {
        "id": name,
        **span,
        "supervisions": [supervision],
        "recording": recording,
        "type": "MultiCut" if isinstance(used, list) else "MonoCut",
    }


def _write(path: Path, items: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON lines, compressed, with the same bytes each time."""
    lines = (json.dumps(item, ensure_ascii=False) + "\n" for item in items)
    text = "".join(lines).encode("utf-8", "backslashreplace")
    write_bytes(path, gzip.compress(text, 6, mtime=0))
