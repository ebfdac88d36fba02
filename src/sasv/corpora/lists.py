"""Reads lists that several corpora share: lists of fields, and the countermeasure lists of
ASVspoof.
"""

import csv
from pathlib import Path

from sasv.audio.formats import SUFFIXES, suffix_of
from sasv.core.errors import SasvError, listed
from sasv.core.files import read_lines
from sasv.tables import NONE
from sasv.tables.labels import BONA_FIDE, SPOOF

LABELS = {
    "bonafide": BONA_FIDE,
    "bona-fide": BONA_FIDE,
    "bona_fide": BONA_FIDE,
    "genuine": BONA_FIDE,
    "real": BONA_FIDE,
    "spoof": SPOOF,
    "spoofed": SPOOF,
    "fake": SPOOF,
}
"""Labels of bona fide and spoofed speech in corpora, in lower case -> our labels."""


def read_fields(path: Path, count: int) -> list[list[str]]:
    """Return the fields of each line, which are separated by whitespace.

    Raises:
        SasvError: a line does not have ``count`` fields.
    """
    rows = [line.split() for line in read_lines(path)]
    for number, row in enumerate(rows, 1):
        if len(row) != count:
            raise SasvError(
                f"{path}, line {number}: {len(row)} fields instead of {count}; is it another "
                "protocol?"
            )
    return rows


def read_countermeasure(path: Path) -> list[tuple[str, str, str, str]]:
    """Return (speaker, utterance, bonafide or spoof, attack) for each line of the form
    ``LA_0079 LA_T_1138215 - - bonafide``.
    """
    rows = []
    for fields in read_fields(path, 5):
        row = countermeasure_row(fields)
        if row is None:
            raise SasvError(
                f"{path}: unknown label '{fields[4]}' of {fields[1]}; expected bonafide or spoof"
            )
        rows.append(row)
    return rows


def countermeasure_row(fields: list[str]) -> tuple[str, str, str, str] | None:
    """Return (speaker, utterance, bonafide or spoof, attack) for the five fields of a
    countermeasure list; None if the fields are something else.
    """
    if len(fields) != 5 or fields[4] not in (BONA_FIDE, SPOOF):
        return None
    speaker, name, _, attack, label = fields
    return speaker, name, label, attack if label == SPOOF else NONE


def read_csv(path: Path, columns: tuple[str, ...], delimiter: str = ",") -> list[dict[str, str]]:
    """Return the rows of a CSV file with a header. Column names are matched in any letter case, and
    whitespace around cells is removed.

    Raises:
        SasvError: a column is missing, or a row has a different number of cells.
    """
    lines = list(csv.reader(read_lines(path), delimiter=delimiter))
    if not lines:
        raise SasvError(f"{path}: contains no lines")
    header = [cell.strip().lower() for cell in lines[0]]
    missing = [column for column in columns if column not in header]
    if missing:
        raise SasvError(
            f"{path}: column {listed(missing)} is missing; the header has: {listed(header, 20)}"
        )
    rows = []
    for number, cells in enumerate(lines[1:], 2):
        if len(cells) != len(header):
            raise SasvError(
                f"{path}, line {number}: {len(cells)} cells, the header has {len(header)}"
            )
        rows.append(dict(zip(header, (cell.strip() for cell in cells))))
    return rows


def label_of(path: Path, text: str, name: str) -> str:
    """Return bonafide or spoof for a label of a corpus.

    Raises:
        SasvError: the label is unknown.
    """
    label = LABELS.get(text.lower())
    if label is None:
        raise SasvError(
            f"{path}: unknown label '{text}' of {name}; known: {listed(list(LABELS), 10)}"
        )
    return label


def without_suffix(name: str) -> str:
    """Return a file name without the suffix of an audio file, if it has one."""
    suffix = suffix_of(name)
    return name[: -len(suffix)] if suffix in SUFFIXES else name
