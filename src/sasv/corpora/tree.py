"""Lists the audio files below a folder in one walk. Each real folder is visited once, only regular
files are listed, and a message tells what was skipped.
"""

import logging
import os
from collections import Counter
from pathlib import Path

from sasv.audio.formats import SUFFIXES, suffix_of
from sasv.core.errors import SasvError

logger = logging.getLogger("sasv")

NOT_AUDIO = "not audio by their suffix"
HIDDEN = "hidden"
AGAIN = "folders that links lead to a second time"
NOT_REGULAR = "not regular files"
LEADS_NOWHERE = "links to files that are not there"

SHOWN_SUFFIXES = 6


PARENTS = 3
"""Relative paths in the lists of other toolkits are relative to the folder in which the toolkit
ran, so that this many parent folders of a list are tried.
"""


def found_above(folder: Path, path: str) -> Path | None:
    """Return a relative path as it exists in the folder of a list or in one of its parents, or
    None.
    """
    for above in (folder, *folder.resolve().parents[:PARENTS]):
        if (above / path).exists():
            return above / path
    return None


def audio_below(folder: Path) -> list[str]:
    """Return the audio files below a folder as sorted relative paths.

    Links to folders are followed, but each folder is visited once. Names that begin with a dot and
    ``__MACOSX`` are left out, because they are temporary files and archive data of macOS. The
    skipped files are counted and logged.

    Raises:
        SasvError: the folder does not exist, or a folder below it is not readable.
    """
    if not folder.is_dir():
        raise SasvError(f"{folder}: no such folder; check the path")
    found: list[str] = []
    skipped: Counter[str] = Counter()
    suffixes: Counter[str] = Counter()
    entered: set[tuple[int, int]] = set()
    waiting = [(str(folder), "")]
    linked: list[
        tuple[str, str]
    ] = []  # links come after all others, so that a file is listed under its real path
    while waiting or linked:
        where, prefix = waiting.pop() if waiting else linked.pop(0)
        status = Path(where).stat()
        identity = (status.st_dev, status.st_ino)
        if identity in entered:
            skipped[AGAIN] += 1
            continue
        entered.add(identity)
        for entry in _entries(where):
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                skipped[HIDDEN] += 1
            elif entry.is_dir():
                below = linked if entry.is_symlink() else waiting
                below.append((entry.path, f"{prefix}{entry.name}/"))
            elif suffix_of(entry.name) not in SUFFIXES:
                skipped[NOT_AUDIO] += 1
                suffixes[suffix_of(entry.name) or "no suffix"] += 1
            elif entry.is_file():
                found.append(prefix + entry.name)
            else:
                nowhere = entry.is_symlink() and not Path(entry.path).exists()
                skipped[LEADS_NOWHERE if nowhere else NOT_REGULAR] += 1
    if skipped:
        logger.info(f"{folder}: skipped {_described(skipped, suffixes)}")
    return sorted(found)


def _entries(where: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(where) as entries:
            return list(entries)
    except OSError as error:
        raise SasvError(
            f"{where}: this folder cannot be read ({error.strerror or error}); change its "
            "permissions, or move it away"
        ) from error


def _described(skipped: Counter[str], suffixes: Counter[str]) -> str:
    """Describe the counts in words."""
    parts = []
    for reason, count in skipped.most_common():
        shown = f"{count} {reason}"
        if reason == NOT_AUDIO:
            most = [f"{suffix} {number}" for suffix, number in suffixes.most_common(SHOWN_SUFFIXES)]
            more = " ..." if len(suffixes) > SHOWN_SUFFIXES else ""
            shown += f" ({', '.join(most)}{more})"
        parts.append(shown)
    return ", ".join(parts)
