"""Digests of the content of files and folders, independent of their paths, by which finished work
recognises its inputs.

A record contains the absolute path and a digest of the content. A path that is spelt differently, a
link, or a copy on another disk is therefore the same input, and a file that was replaced in place
is a different one.
"""

import os
from collections.abc import Mapping
from itertools import compress
from pathlib import Path
from typing import Literal

from sasv.core.errors import SasvError
from sasv.core.files import digest_of_bytes, digest_of_file
from sasv.storage.locations import absolute
from sasv.tables.table import Table
from sasv.tables.utterances import Utterances

Content = dict[str, str]
"""``path`` (absolute), and ``sha256`` of a file, ``rows`` of an utterance table, or ``listing`` of
a folder.
"""

Comparison = Literal["same", "moved", "unknown", "changed"]
"""Result of comparing an input with its record. ``unknown`` means that an older version of sasv
recorded no digest and that the recorded path no longer exists."""

CODED_COLUMNS = ("speaker", "label", "attack", "split")
"""Columns of an utterance table, besides the names and the audio, that affect training and
synthesis.
"""


def content_of(path: str | Path) -> Content | None:
    """Return the record of a file or folder, None if it does not exist."""
    place = Path(path)
    found = {"path": os.path.abspath(place)}
    if place.is_dir():
        return found | {"listing": listing_digest(place)}
    if not place.is_file():
        return None
    found["sha256"] = digest_of_file(place)
    rows = table_rows_digest(place)
    return found | {"rows": rows} if rows else found


def compare(kept: Mapping[str, str], path: str | Path) -> Comparison:
    """Compare the record of an input with what is at ``path`` now.

    Args:
        kept: the result of ``content_of``, or only its ``path`` if no digest was recorded.
        path: the present file or folder.
    """
    old = Path(kept["path"])
    now = Path(path)
    if now.is_dir() or "listing" in kept:
        return _compare_folders(kept, old, now)
    if not now.is_file():
        return "changed"
    spelt_alike = os.path.realpath(old) == os.path.realpath(now)
    if "sha256" not in kept:
        if spelt_alike:
            return "same"
        if not old.is_file():
            return "unknown"
        kept = content_of(old) or kept
    moved: Comparison = "same" if spelt_alike else "moved"
    if kept["sha256"] == digest_of_file(now):
        return moved
    return moved if "rows" in kept and kept["rows"] == table_rows_digest(now) else "changed"


def _compare_folders(kept: Mapping[str, str], old: Path, now: Path) -> Comparison:
    if os.path.realpath(old) == os.path.realpath(now):
        return "same"
    if not now.is_dir():
        return "changed"
    before = kept.get("listing") or (listing_digest(old) if old.is_dir() else "")
    if not before:
        return "unknown"
    return "moved" if before == listing_digest(now) else "changed"


def listing_digest(folder: str | Path) -> str:
    """Return the digest of the relative names and the sizes of the files below a folder, except
    hidden files.
    """
    lines = []
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = os.path.relpath(parent, folder)
        for name in sorted(name for name in files if not name.startswith(".")):
            try:
                size = Path(parent, name).stat().st_size
            except OSError:  # a dangling link
                size = -1
            lines.append(f"{inside}/{name}\t{size}\n")
    return digest_of_bytes("".join(lines))


def table_rows_digest(path: str | Path) -> str:
    """Return the ``rows_digest`` of an utterance table, and an empty string for any other file."""
    if not str(path).endswith((".tsv", ".tsv.gz", ".parquet")):
        return ""
    try:
        table = Table.load(path)
        return rows_digest(Utterances(table)) if "path" in table.columns else ""
    except SasvError:
        return ""


def rows_digest(utterances: Utterances) -> str:
    """Return a digest of the rows that stays the same when the audio moves to another disk.

    Only the part of each path below the common folder is included. The common folder is determined
    separately for each attack, because copies by a vocoder are usually not in the folder of their
    sources.
    """
    table = utterances.table
    parts = [_joined(utterances.ids)]
    for column in CODED_COLUMNS:
        if column in table.columns:
            codes, names = table.codes(column)
            parts += [column.encode(), _joined(names), codes.astype("<i4").tobytes()]
    paths = utterances.paths
    if not all(path.startswith(os.sep) for path in paths):
        paths = [absolute(path) for path in paths]
    codes, names = utterances.attacks
    for code in range(len(names)):
        own = list(compress(paths, codes == code)) if len(names) > 1 else paths
        parts.append(_joined(_below_common_folder(own)))
    return digest_of_bytes(*parts)


def _joined(texts: list[str]) -> bytes:
    return "\n".join(texts).encode(errors="surrogateescape")


def _below_common_folder(paths: list[str]) -> list[str]:
    """Return the paths relative to their common folder, with forward slashes."""
    if not paths:
        return []
    ends = [os.path.dirname(path) + os.sep for path in (min(paths), max(paths))]
    length = os.path.commonprefix(ends).rfind(os.sep) + 1
    return [path[length:].replace(os.sep, "/") for path in paths]
