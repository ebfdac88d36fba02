"""Manifests of lhotse: a CutSet, a RecordingSet with its SupervisionSet, or Lhotse Shar.

They are JSON lines, which are read without lhotse. A cut of a whole recording becomes a row that
names the file; a part of a recording is written as FLAC.
"""

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from sasv.audio import AUTO, RATE, read_audio
from sasv.core.errors import SasvError, listed
from sasv.core.files import parse_json, read_bytes, read_lines
from sasv.corpora.base import CorpusLists, Utterance, readable_name
from sasv.corpora.contained import Contained
from sasv.corpora.lists import label_of
from sasv.corpora.tree import found_above
from sasv.storage import joined, locate
from sasv.storage.local import local_file
from sasv.storage.locations import scheme_of
from sasv.storage.tars import index_of
from sasv.tables import NONE

KINDS = ("cuts", "recordings", "supervisions")
MANIFEST = re.compile(r"(?:.*[._-])?(cuts|recordings|supervisions)(?:[._-](.+?))?\.jsonl?(\.gz)?")
"""Name of a manifest: ``CORPUS_cuts_PART.jsonl.gz``, ``recordings.jsonl``, ``cuts.000000.jsonl``.
"""

SHAR_PART = re.compile(r"\d{6,}")
SAME_SECONDS = 0.01
"""A cut whose length differs by less than this number of seconds from its recording is the whole
recording.
"""

COPIED = ("gender", "language")
CUSTOM = ("attack", "source", "codec")
"""Fields of a supervision, and custom fields of sasv, that become columns."""


@dataclass(frozen=True)
class _Piece:
    """A cut, or a supervision with its recording.

    Attributes:
        place: manifest and line, for messages.
        name: of the utterance.
        recording: the recording as JSON.
        start: where it begins, in seconds.
        seconds: its length.
        channels: the channels of the recording.
        supervision: speaker and other fields, as JSON.
        part: of the corpus.
    """

    place: str
    name: str
    recording: dict[str, Any]
    start: float
    seconds: float
    channels: Sequence[int]
    supervision: dict[str, Any]
    part: str


def read(path: Path) -> CorpusLists:
    """Read a manifest, or all manifests of a folder.

    Raises:
        SasvError: a manifest is invalid, or contains something other than unmodified speech of one
            speaker (mixed, padded, or perturbed cuts, cuts of several speakers, commands).
    """
    lists = CorpusLists(path if path.is_dir() else path.parent, [], files=set())
    files: set[str] = set()
    parts: list[tuple[_Piece, str, str]] = []
    extras: dict[str, dict[str, str]] = {}
    for piece in _pieces(path, lists.notes):
        source, channel = _source(piece)
        name = readable_name(piece.name)
        custom = piece.supervision.get("custom") or {}
        label = custom.get("label")
        row = Utterance(
            name,
            source,
            str(piece.supervision["speaker"]),
            str(custom.get("split") or piece.part),
            label_of(Path(piece.place), str(label), name) if label else "bonafide",
            str(custom.get("attack") or NONE),
        )
        whole = _seconds(piece.place, piece.name, piece.recording.get("duration"))
        if piece.start > SAME_SECONDS or abs(piece.seconds - whole) > SAME_SECONDS:
            row = row._replace(path=f"{source} from {piece.start:.3f} s ({name})")
            parts.append((piece, source, channel))
        else:
            if _exists(source):
                files.add(source)
            if channel != AUTO:
                extras.setdefault("channel", {})[name] = channel
        lists.utterances.append(row)
        cells = {key: piece.supervision.get(key) for key in COPIED}
        cells |= {key: custom.get(key) for key in CUSTOM if key != "attack"}
        for key, value in cells.items():
            if isinstance(value, str) and value and not set(value) & set("\t\r\n"):
                extras.setdefault(key, {})[name] = value
    lists.files = files
    lists.extras = extras
    if parts:
        lists.notes.append(
            f"{len(parts)} of {len(lists.utterances)} cuts are parts of recordings; they are "
            f"written as FLAC of {RATE} Hz"
        )
        names = [readable_name(piece.name) for piece, _, _ in parts]
        lists.contained = Contained(names, lambda: _cut(parts))
    return lists


def _cut(parts: Sequence[tuple[_Piece, str, str]]) -> Iterator[tuple[str, bytes]]:
    """Yield parts of recordings as FLAC."""
    for piece, source, channel in parts:
        start = round(piece.start * RATE)
        wave = read_audio(source, start, round(piece.seconds * RATE), channel=channel)
        stream = io.BytesIO()
        soundfile.write(stream, np.clip(wave, -1.0, 1.0), RATE, format="FLAC")
        yield ".flac", stream.getvalue()


def _pieces(path: Path, notes: list[str]) -> Iterator[_Piece]:
    """Yield the utterances of a manifest, or of the manifests of a folder."""
    found: dict[str, dict[str, Path]] = {kind: {} for kind in KINDS}
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        match = MANIFEST.fullmatch(file.name)
        if match:
            found[match[1]][match[2] or "all"] = file
        elif not path.is_dir():
            found["cuts"]["all"] = file
    if not path.is_dir() and not found["cuts"]:
        return (yield from _of_pair(path, found))
    if found["cuts"]:
        if found["recordings"]:
            notes.append(f"read {listed(list(found['cuts'].values()), 2)}, and not the recordings")
        for part, file in found["cuts"].items():
            yield from _of_cuts(file, "all" if SHAR_PART.fullmatch(part) else part)
        return
    if not found["recordings"]:
        raise SasvError(
            f"{path}: contains no manifest of lhotse; expected cuts*.jsonl.gz, or "
            "recordings*.jsonl.gz and supervisions*.jsonl.gz"
        )
    for part, file in found["recordings"].items():
        if part not in found["supervisions"]:
            raise SasvError(
                f"{file}: there is no file of supervisions in the same folder, which gives the "
                "speakers"
            )
        yield from _of_supervisions(file, found["supervisions"][part], part)


def _of_pair(path: Path, found: dict[str, dict[str, Path]]) -> Iterator[_Piece]:
    """Yield the utterances of recordings or supervisions that were given by their file."""
    kind = "recordings" if found["recordings"] else "supervisions"
    other = KINDS[3 - KINDS.index(kind)]
    beside = path.with_name(other.join(path.name.rsplit(kind, 1)))
    if not beside.exists():
        raise SasvError(f"{path}: needs {beside.name} in the same folder")
    part = next(iter(found[kind]))
    both = {kind: path, other: beside}
    yield from _of_supervisions(both["recordings"], both["supervisions"], part)


def _of_cuts(path: Path, part: str) -> Iterator[_Piece]:
    for place, cut in _items(path):
        name = str(cut.get("id"))
        kind = cut.get("type", "MonoCut")
        if kind not in ("MonoCut", "MultiCut"):
            raise SasvError(
                f"{place}: {name} is a {kind}, not speech as it was recorded; save the cuts before "
                "they are mixed or padded, or write them as audio first (cuts.save_audios)"
            )
        supervisions = cut.get("supervisions") or []
        speakers = {item.get("speaker") for item in supervisions if isinstance(item, dict)}
        if len(speakers) != 1 or None in speakers:
            raise SasvError(
                f"{place}: {name} has {len(speakers - {None})} speakers; a cut needs one, in its "
                "supervisions (cuts.trim_to_supervisions divides it)"
            )
        recording = cut.get("recording")
        if not isinstance(recording, dict):
            raise SasvError(f"{place}: {name} has no recording; sasv needs audio, not features")
        yield _piece(place, name, recording, cut, supervisions[0], part)


def _of_supervisions(recordings: Path, supervisions: Path, part: str) -> Iterator[_Piece]:
    known = {str(item.get("id")): item for _, item in _items(recordings)}
    for place, item in _items(supervisions):
        name = str(item.get("id"))
        recording = known.get(str(item.get("recording_id")))
        if recording is None:
            raise SasvError(
                f"{place}: the recording {item.get('recording_id')} is not in {recordings.name}"
            )
        if item.get("speaker") is None:
            raise SasvError(f"{place}: {name} has no speaker")
        yield _piece(place, name, recording, item, item, part)


def _piece(
    place: str,
    name: str,
    recording: dict[str, Any],
    span: dict[str, Any],
    supervision: dict[str, Any],
    part: str,
) -> _Piece:
    channel = span.get("channel", 0)
    channels = channel if isinstance(channel, list) else [channel]
    if not all(isinstance(number, int) for number in channels):
        raise SasvError(f"{place}: {name}: channel {channel} is not a number")
    custom = supervision.get("custom")
    if custom is not None and not isinstance(custom, dict):
        raise SasvError(f"{place}: {name}: custom is not an object")
    start = _seconds(place, name, span.get("start", 0))
    seconds = _seconds(place, name, span.get("duration"))
    return _Piece(place, name, recording, start, seconds, channels, supervision, part)


def _seconds(place: str, name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
        raise SasvError(f"{place}: {name}: {value} is not a number of seconds")
    return float(value)


def _source(piece: _Piece) -> tuple[str, str]:
    """Return (path of the audio file, channel of it)."""
    for transform in piece.recording.get("transforms") or []:
        raise SasvError(
            f"{piece.place}: {piece.name} is changed by {_name_of(transform)} when it is read; "
            "save the manifest before that, or write the cuts as audio first (cuts.save_audios)"
        )
    sources = piece.recording.get("sources")
    if not isinstance(sources, list) or not all(isinstance(item, dict) for item in sources):
        raise SasvError(f"{piece.place}: {piece.name}: its recording has no sources")
    for item in sources:
        have = item.get("channels")
        if isinstance(have, list) and set(piece.channels) <= set(have):
            channel = AUTO
            if len(have) > 1 and len(piece.channels) == 1:
                channel = str(have.index(piece.channels[0]))
            elif len(piece.channels) < len(have):
                break
            return _audio_of(piece, item), channel
    raise SasvError(
        f"{piece.place}: {piece.name}: channels {listed(piece.channels)} are not those of one "
        "source, nor one channel of it"
    )


def _name_of(transform: object) -> str:
    return str(transform.get("name")) if isinstance(transform, dict) else str(transform)


def _audio_of(piece: _Piece, source: dict[str, Any]) -> str:
    """Return the path of a source of a recording."""
    kind = source.get("type")
    where = str(source.get("source"))
    manifest = Path(piece.place.rpartition(", line")[0])
    if kind == "shar":
        return _in_shar(piece, manifest)
    if kind == "url":
        return where
    if kind != "file":
        raise SasvError(
            f"{piece.place}: {piece.name} is a source of type {kind} ({where[:60]}), which sasv "
            "does not read; write the cuts as audio first (cuts.save_audios)"
        )
    if scheme_of(where) or Path(where).is_absolute():
        return where
    beside = manifest.resolve().parent
    here = Path.cwd() / where
    return str(here if here.exists() else found_above(beside, where) or beside / where)


def _in_shar(piece: _Piece, manifest: Path) -> str:
    """Return the member that contains the audio of a cut of Lhotse Shar."""
    tar = manifest.resolve().with_name(
        re.sub(r"^cuts(\.\d+)\.jsonl(\.gz)?$", r"recording\1.tar", manifest.name)
    )
    member = _members(str(tar)).get(piece.name) if tar.suffix == ".tar" else None
    if member is None:
        raise SasvError(
            f"{piece.place}: {piece.name} is in a shard of audio, and not in the file beside the "
            f"manifest ({tar.name})"
        )
    return f"{tar}#{member}"


@cache
def _members(tar: str) -> dict[str, str]:
    """Return the members of a tar with audio, by the names of their cuts."""
    entries = index_of(local_file(tar), locate).entries()
    names = (entry.member for entry in entries if not entry.member.endswith((".json", ".nodata")))
    return {name.rpartition(".")[0]: name for name in names}


def _exists(path: str) -> bool:
    """Whether a file exists; an object in remote storage counts as existing."""
    if scheme_of(path) or ".tar#" in path:
        return True
    return Path(joined("", path)).is_file()


def _items(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (file and line, object) of a manifest of JSON lines, or of a JSON list."""
    if path.name.removesuffix(".gz").endswith(".json"):
        lines: Sequence[str | bytes] = [read_bytes(path)]
    else:
        lines = read_lines(path)
    for number, line in enumerate(lines, 1):
        place = f"{path}, line {number}"
        try:
            value = parse_json(line)
        except (ValueError, RecursionError) as error:
            raise SasvError(f"{place}: broken JSON; was the manifest cut short?") from error
        for item in value if isinstance(value, list) else [value]:
            if not isinstance(item, dict):
                raise SasvError(f"{place}: not an object of a manifest of lhotse")
            yield place, item
