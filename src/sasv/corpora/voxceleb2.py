"""VoxCeleb2 (Chung et al. 2018): ``dev/aac/idNNNNN/<video>/NNNNN.m4a`` as downloaded, or the same
tree in another audio format.
"""

import re
from pathlib import Path

from sasv.audio.formats import suffix_of
from sasv.core.errors import SasvError
from sasv.core.files import read_lines
from sasv.corpora.base import CorpusLists, Utterance
from sasv.corpora.tree import audio_below

LAYOUT = re.compile(r"(?:.*/)?((id\d{5})/[^/]+/\d+)\.\w+$")
LISTED = re.compile(r"(?:.*/)?((id\d{5})/[^/\s]+/\d+)(?:\.\w+)?$")
"""The same pattern for lists, in which the suffix may be missing."""

VIDEO = (".mp4", ".avi")
"""The corpus is also distributed as video; if both exist, the audio is used."""

LIST_NAMES = ("train_list.txt", "meta/train_list.txt")


def utterances_below(folder: Path, corpus: str) -> tuple[list[Utterance], set[str]]:
    """Return the utterances of a VoxCeleb tree, which are named ``idNNNNN/<video>/NNNNN``, and the
    paths of all audio files.
    """
    rows: dict[str, Utterance] = {}
    files = audio_below(folder)
    for path in files:
        match = LAYOUT.match(path)
        if match is None:
            continue
        other = rows.get(match[1])
        if other is not None and suffix_of(path) in VIDEO:
            continue
        if other is not None and suffix_of(other.path) not in VIDEO:
            raise SasvError(
                f"{folder}: {match[1]} exists twice ({other.path}, {path}); keep one copy"
            )
        split = "test" if "test" in path.split("/")[:-3] else "dev"
        rows[match[1]] = Utterance(match[1], path, match[2], split)
    if not rows:
        raise SasvError(
            f"{folder}: contains no audio in the form idNNNNN/<video>/NNNNN; give the unpacked "
            f"{corpus} folder"
        )
    return list(rows.values()), set(files)


def read(folder: Path) -> CorpusLists:
    """Read the tree. If ``train_list.txt`` is in ``folder`` or in its subfolder ``meta``, only the
    utterances that it lists are used, and all of them must exist. The fields of a line may have the
    official order (``id00012 id00012/21Uxsk56VDQ/00001.wav``) or the reverse order.
    """
    utterances, files = utterances_below(folder, "VoxCeleb2")
    lists = CorpusLists(folder, utterances, files=files)
    listed = next((folder / name for name in LIST_NAMES if (folder / name).exists()), None)
    if listed is None:
        return lists
    found = {row.utterance: row for row in utterances}
    rows = []
    for number, line in enumerate(read_lines(listed), 1):
        fields = line.split()
        paths = [(field, LISTED.match(field)) for field in fields]
        named = [(field, match) for field, match in paths if match is not None]
        if len(fields) not in (1, 2) or len(named) != 1:
            raise SasvError(
                f"{listed}, line {number}: expected 'idNNNNN idNNNNN/<video>/NNNNN.wav'; found: "
                f"{line[:60]}"
            )
        path, match = named[0]
        rows.append(found.get(match[1], Utterance(match[1], path, match[2], "dev")))
    lists.utterances = rows
    lists.notes.append(
        f"{listed.name} names {len(rows)} of the {len(found)} utterances in the tree"
    )
    return lists
