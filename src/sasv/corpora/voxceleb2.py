"""VoxCeleb2 (Chung et al. 2018): ``dev/aac/idNNNNN/<video>/NNNNN.m4a`` as downloaded, or the same tree converted."""

import re
from pathlib import Path

from sasv.core.errors import SasvError
from sasv.core.files import read_lines
from sasv.corpora.base import CorpusLists, Utterance, audio_below

LAYOUT = re.compile(r"(?:.*/)?((id\d{5})/[^/]+/\d+)\.\w+$")


def utterances_below(folder: Path, corpus: str) -> tuple[list[Utterance], set[str]]:
    """Return the utterances of a VoxCeleb tree, named ``idNNNNN/<video>/NNNNN``, and all audio paths."""
    rows: dict[str, Utterance] = {}
    files = audio_below(folder)
    for path in files:
        match = LAYOUT.match(path)
        if match is None:
            continue
        if match[1] in rows:
            raise SasvError(f"{folder}: {match[1]} is there twice ({rows[match[1]].path}, {path}); keep one copy")
        split = "test" if "test" in path.split("/")[:-3] else "dev"
        rows[match[1]] = Utterance(match[1], path, match[2], split)
    if not rows:
        raise SasvError(f"{folder}: no idNNNNN/<video>/NNNNN audio in it; give the unpacked {corpus} folder")
    return list(rows.values()), set(files)


def read(folder: Path) -> CorpusLists:
    """Read the tree; where ``train_list.txt`` (lines ``id00012/21Uxsk56VDQ/00001.wav id00012``) lies in the folder,
    its lines are the corpus, and what it names must exist."""
    utterances, files = utterances_below(folder, "VoxCeleb2")
    lists = CorpusLists(folder, utterances, files=files)
    listed = folder / "train_list.txt"
    if not listed.exists():
        return lists
    found = {row.utterance: row for row in utterances}
    rows = []
    for number, line in enumerate(read_lines(listed), 1):
        name, _, speaker = line.strip().partition(" ")
        utterance = name.rpartition(".")[0]
        if not utterance or not speaker:
            raise SasvError(f"{listed}, line {number}: expected 'idNNNNN/<video>/NNNNN.wav idNNNNN'")
        rows.append(found.get(utterance, Utterance(utterance, name, speaker.strip(), "dev")))
    lists.utterances = rows
    lists.notes.append(f"{listed.name} names {len(rows)} of the {len(found)} utterances in the tree")
    return lists
