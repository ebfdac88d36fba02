"""Audio datasets of Hugging Face on this machine: Parquet files, or what ``save_to_disk`` wrote.

Both are read with pyarrow. Recordings inside the files are written into tars, unchanged; recordings
to which the dataset refers by path are not copied.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sasv.audio.formats import suffix_of
from sasv.core.errors import SasvError, listed
from sasv.core.files import read_json
from sasv.corpora.base import CorpusLists, Utterance, readable_name
from sasv.corpora.contained import Contained
from sasv.corpora.lists import LABELS, label_of, without_suffix
from sasv.storage.locations import scheme_of
from sasv.tables import NONE

USUAL = {
    "audio": ("audio", "speech", "wav"),
    "utterance": ("utterance", "utterance_id", "utt_id", "id"),
    "speaker": ("speaker", "speaker_id", "spk_id", "spk", "client_id", "speaker_name", "user_id"),
    "label": ("label", "key"),
    "attack": ("attack", "attack_id"),
    "gender": ("gender",),
    "language": ("language", "lang", "locale"),
    "source": ("source",),
    "codec": ("codec",),
    "channel": ("channel",),
}
"""Column of the utterance table -> usual names of the column of a dataset that contains it."""

EXTRAS = ("gender", "language", "source", "codec", "channel")
SPLIT = re.compile(r"(.+?)-\d{5}-of-\d{5}(-[0-9a-f]{16})?")
"""File name of a shard of a split: ``train-00000-of-00004.parquet``."""

ROWS = 64
"""Rows that are read at a time."""


@dataclass(frozen=True)
class _File:
    """A file of a dataset, and the split to which it belongs."""

    path: Path
    split: str

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield some columns, a few rows at a time."""
        try:
            if self.path.suffix == ".parquet":
                with pq.ParquetFile(self.path) as file:
                    yield from file.iter_batches(ROWS, columns=list(columns))
                return
            with pa.memory_map(str(self.path)) as data, pa.ipc.open_stream(data) as stream:
                for batch in stream:
                    yield batch.select(list(columns))
        except (pa.ArrowInvalid, OSError) as error:
            raise _broken(self.path, error) from error

    def schema(self) -> pa.Schema:
        """Return its columns."""
        try:
            if self.path.suffix == ".parquet":
                return pq.read_schema(self.path)
            with pa.memory_map(str(self.path)) as data:
                return pa.ipc.open_stream(data).schema
        except (pa.ArrowInvalid, OSError) as error:
            raise _broken(self.path, error) from error


def read(folder: Path, columns: Mapping[str, str] | None = None) -> CorpusLists:
    """Read a dataset: a folder or a single file.

    Args:
        folder: path of the dataset.
        columns: column of the utterance table -> column of the dataset; by default the usual names.

    Raises:
        SasvError: there is no dataset, a file is damaged, or there is no column with the speaker.
    """
    files = _files(folder)
    chosen = _columns(files[0], columns or {})
    lists = CorpusLists(folder if folder.is_dir() else folder.parent, [], files=set())
    rows: list[_Row] = []
    for file in files:
        rows += _rows(file, chosen)
    names = _names(rows, "utterance" in chosen)
    inside: list[tuple[str, _Row]] = []
    present: set[str] = set()
    for name, row in zip(names, rows):
        path = f"{row.file.path} row {row.number}"
        if row.contained:
            inside.append((name, row))
        else:
            path = _path_of(row)
            if scheme_of(path) or Path(path).is_file():
                present.add(path)
        label = label_of(row.file.path, row.cells.get("label") or "bonafide", name)
        lists.utterances.append(
            Utterance(
                name,
                path,
                row.cells["speaker"],
                row.file.split,
                label,
                row.cells.get("attack") or NONE,
            )
        )
        for extra in EXTRAS:
            if row.cells.get(extra):
                lists.extras.setdefault(extra, {})[name] = row.cells[extra]
    lists.files = present
    if inside:
        lists.contained = Contained(
            [name for name, _ in inside], lambda: _recordings(files, chosen["audio"])
        )
    return lists


@dataclass(frozen=True)
class _Row:
    """A row of a dataset.

    Attributes:
        file: file that contains the row.
        number: its position in the file, from 0.
        audio: path of the recording in the dataset; may be empty.
        contained: whether the recording is in the file.
        cells: column of the utterance table -> text.
    """

    file: _File
    number: int
    audio: str
    contained: bool
    cells: dict[str, str]


def _files(folder: Path) -> list[_File]:
    """Return the files of a dataset with audio."""
    if folder.is_file():
        match = SPLIT.fullmatch(folder.stem)
        return [_File(folder, match[1] if match else "all")]
    splits = folder / "dataset_dict.json"
    if splits.exists():
        names = read_json(splits, {"splits": list}, remedy="save the dataset again")["splits"]
        return [file for name in names for file in _saved(folder / str(name), str(name))]
    if (folder / "state.json").exists():
        return _saved(folder, "all")
    found = []
    for path in sorted(folder.rglob("*.parquet")):
        match = SPLIT.fullmatch(path.stem)
        found.append(_File(path, match[1] if match else "all"))
    if not found:
        raise SasvError(
            f"{folder}: contains no dataset; expected Parquet files, or the files of save_to_disk "
            "(download a dataset with hf download NAME --repo-type dataset --local-dir FOLDER)"
        )
    return found


def _saved(folder: Path, split: str) -> list[_File]:
    """Return the files of a split that save_to_disk wrote."""
    state = read_json(folder / "state.json", {"_data_files": list}, remedy="save the dataset again")
    try:
        names = [str(item["filename"]) for item in state["_data_files"]]
    except (TypeError, KeyError) as error:
        raise SasvError(
            f"{folder / 'state.json'}: lists no files; save the dataset again"
        ) from error
    for name in names:
        if not (folder / name).is_file():
            raise SasvError(
                f"{folder / name}: this file is listed in state.json, but does not exist; download "
                "it"
            )
    return [_File(folder / name, split) for name in names]


def _columns(file: _File, given: Mapping[str, str]) -> dict[str, str]:
    """Return column of the utterance table -> column of the dataset."""
    schema = file.schema()
    unknown = [name for name in given if name not in USUAL]
    if unknown:
        raise SasvError(f"--columns names {listed(unknown)}; known are {listed(list(USUAL), 20)}")
    absent = [name for name in given.values() if name not in schema.names]
    if absent:
        raise SasvError(
            f"{file.path}: has no column {listed(absent)}; it has {listed(schema.names, 20)}"
        )
    chosen = dict(given)
    for name, usual in USUAL.items():
        found = next((column for column in usual if column in schema.names), None)
        if name not in chosen and found is not None:
            chosen[name] = found
    if "audio" not in given:
        marked = [name for name, kind in _features(schema).items() if kind.get("_type") == "Audio"]
        if marked:
            chosen["audio"] = marked[0]
    for name in ("audio", "speaker"):
        if name not in chosen:
            raise SasvError(
                f"{file.path}: no column is known to contain the {name}; it has "
                f"{listed(schema.names, 20)}: name it by --columns.{name} COLUMN"
            )
    names = _class_names(schema, chosen.get("label", ""))
    if "label" not in given and names and not all(name.lower() in LABELS for name in names):
        del chosen["label"]  # classes of something else
    return chosen


def _features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """Return the features that Hugging Face stores with the columns, or none."""
    try:
        noted = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = noted["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    if not isinstance(features, dict):
        return {}
    return {name: kind for name, kind in features.items() if isinstance(kind, dict)}


def _class_names(schema: pa.Schema, column: str) -> list[str]:
    """Return the names of the classes to which the numbers of a column refer."""
    names = _features(schema).get(column, {}).get("names")
    return [str(name) for name in names] if isinstance(names, list) else []


def _rows(file: _File, chosen: Mapping[str, str]) -> Iterator[_Row]:
    """Yield the rows of a file, without the bytes of their recordings."""
    schema = file.schema()
    missing = [column for column in chosen.values() if column not in schema.names]
    if missing:
        raise SasvError(
            f"{file.path}: has no column {listed(missing)}, unlike the first file of the dataset"
        )
    audio = schema.field(chosen["audio"]).type
    texts = {name: column for name, column in chosen.items() if name != "audio"}
    classes = {name: _class_names(schema, column) for name, column in texts.items()}
    number = 0
    for batch in file.batches(list(dict.fromkeys(chosen.values()))):
        paths, contained = _audio(file, batch.column(chosen["audio"]), audio)
        cells = {
            name: [_text(value, classes[name]) for value in batch.column(column).to_pylist()]
            for name, column in texts.items()
        }
        for index, path in enumerate(paths):
            own = {name: values[index] for name, values in cells.items()}
            if not own["speaker"]:
                raise SasvError(f"{file.path}, row {number}: has no speaker")
            if not path and not contained[index]:
                raise SasvError(f"{file.path}, row {number}: has no audio")
            yield _Row(file, number, path, contained[index], own)
            number += 1


def _audio(file: _File, column: pa.Array, kind: pa.DataType) -> tuple[list[str], list[bool]]:
    """Return the path of each recording, and whether it is in the file."""
    if pa.types.is_struct(kind) and {"bytes", "path"} <= {field.name for field in kind}:
        paths = [path or "" for path in column.field("path").to_pylist()]
        return paths, column.field("bytes").is_valid().to_pylist()
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return [path or "" for path in column.to_pylist()], [False] * len(column)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return [""] * len(column), column.is_valid().to_pylist()
    raise SasvError(
        f"{file.path}: its audio is {kind}, not a recording (bytes and path); cast the column to "
        "datasets.Audio"
    )


def _text(value: object, classes: Sequence[str]) -> str:
    """Return a cell as text; the number of a class as its name."""
    if value is None:
        return ""
    if classes and isinstance(value, int):
        return classes[value] if 0 <= value < len(classes) else ""
    return " ".join(str(value).split())


def _names(rows: Sequence[_Row], named: bool) -> list[str]:
    """Return the names of the utterances: those of the dataset, else those of the recordings, with
    the split or the row where these occur twice.
    """
    if named:
        names = [readable_name(row.cells["utterance"]) for row in rows]
    else:
        names = [readable_name(without_suffix(Path(row.audio).name)) for row in rows]
    if len(set(names)) < len(names) or not all(names):
        names = [f"{row.file.split}/{name}" for row, name in zip(rows, names)]
    if len(set(names)) < len(names) or not all(names):
        names = [f"{row.file.path.stem}/{row.number:08}" for row in rows]
    return names


def _path_of(row: _Row) -> str:
    """Return the path of a recording that is outside the dataset."""
    if scheme_of(row.audio):
        return row.audio
    return str((row.file.path.parent / row.audio).absolute())


def _recordings(files: Sequence[_File], column: str) -> Iterator[tuple[str, bytes]]:
    """Yield (suffix, bytes) of the recordings that are in the files of a dataset."""
    for file in files:
        for batch in file.batches([column]):
            for cell in batch.column(column).to_pylist():
                found = cell if isinstance(cell, dict) else {"bytes": cell, "path": ""}
                if isinstance(found["bytes"], bytes):
                    yield suffix_of(found["path"] or "") or ".audio", found["bytes"]


def _broken(path: Path, error: Exception) -> SasvError:
    reason = " ".join(str(error).split())[:100]
    return SasvError(
        f"{path}: not a Parquet or Arrow file, or truncated ({reason}); download it again"
    )
