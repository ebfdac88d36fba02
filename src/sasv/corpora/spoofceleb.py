"""SpoofCeleb (Jung et al. 2025), as unpacked: the folders flac, metadata, and protocol. Its
speakers are those of VoxCeleb1.
"""

import csv
from pathlib import Path

from sasv.core.errors import SasvError
from sasv.core.files import read_lines
from sasv.corpora.base import CorpusLists, Trial, Utterance
from sasv.corpora.tree import audio_below
from sasv.tables import NONE
from sasv.tables.labels import BONA_FIDE, SPOOF

PARTS = {"train": "train", "dev": "development", "eval": "evaluation"}
BONA_FIDE_ATTACK = "a00"
"""The value that the lists use as the attack of bona fide speech."""


def read(folder: Path) -> CorpusLists:
    """Read those of the train, development and evaluation parts that exist.

    Each claimed identity is enrolled with a single utterance, so that the "speaker" of a trial is
    the name of that utterance.
    """
    if not (folder / "metadata").is_dir():
        raise SasvError(
            f"{folder}: contains no folder metadata; give the folder with flac, metadata, and "
            "protocol"
        )
    lists = CorpusLists(folder, [], files=set(audio_below(folder)))
    for part, long in PARTS.items():
        metadata = folder / "metadata" / f"{long}.csv"
        if not metadata.exists():
            lists.notes.append(f"no {part} part: metadata/{long}.csv is not there")
            continue
        for file, speaker, attack in _rows(metadata):
            spoofed = attack != BONA_FIDE_ATTACK
            label, shown = (SPOOF, attack) if spoofed else (BONA_FIDE, NONE)
            lists.utterances.append(
                Utterance(_name(file), f"flac/{long}/{file}", speaker, part, label, shown)
            )
        protocol = folder / "protocol" / f"sasv_{long}_evaluation_protocol.csv"
        if not protocol.exists():
            if part != "train":
                lists.notes.append(f"no {part} trials: protocol/{protocol.name} is not there")
            continue
        attacks = {row.utterance: row.attack for row in lists.utterances}
        rows = [(_name(claimed), _name(file), label) for claimed, file, label in _rows(protocol)]
        for claimed, _, label in rows:
            if claimed not in attacks or label not in ("target", "nontarget", "spoof"):
                raise SasvError(
                    f"{protocol}: claim '{claimed}' with label '{label}'; expected an utterance "
                    f"of {metadata.name} and "
                    "target, nontarget or spoof"
                )
        lists.enrolments[part] = {claimed: [claimed] for claimed, _, _ in rows}
        lists.trials[part] = [
            Trial(claimed, name, label, attacks.get(name, NONE)) for claimed, name, label in rows
        ]
    return lists


def _rows(path: Path) -> list[list[str]]:
    """Return the rows of a CSV file with three columns, without its header if it has one."""
    rows = [[cell.strip() for cell in row] for row in csv.reader(read_lines(path))]
    for number, row in enumerate(rows, 1):
        if len(row) != 3:
            raise SasvError(f"{path}, line {number}: {len(row)} columns instead of 3")
    return rows[1:] if rows and rows[0][0] in ("file", "speakerID") else rows


def _name(file: str) -> str:
    return file.removesuffix(".flac")
