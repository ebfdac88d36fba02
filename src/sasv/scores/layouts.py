"""The layouts of score and key files, and how they are recognised.

A layout names the columns of a file without a header. It is recognised by the number of columns and
by which of them contain numbers or labels in words, and never by the values that happen to occur.
The meaning of labels written as numbers is given by the layout, by the name of a column, or by the
user.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sasv.core.errors import TableError
from sasv.tables.labels import BONA_FIDE, NONTARGET, SPOOF, TARGET

SKIP = ""
"""Name of a column that is not read."""

TARGET_OR_NOT = {"0": NONTARGET, "1": TARGET}
"""Labels of the lists of VoxCeleb, and of a column called target."""

SASV_FUSION = {"0": SPOOF, "1": TARGET, "2": NONTARGET}
"""Labels of the fusion tables of the SASV baselines (column sasv_label)."""

WORDS = {
    TARGET: (TARGET, "tgt", "tar", "genuine-target"),
    NONTARGET: (NONTARGET, "non-target", "imposter", "impostor", "imp", "zero-effort-impostor"),
    SPOOF: (SPOOF, "spoofed", "fake", "deepfake", "synthetic", "attack"),
    BONA_FIDE: (BONA_FIDE, "bona-fide", "genuine", "human", "real"),
}
LABEL_WORDS = {word: label for label, words in WORDS.items() for word in words}
"""Labels in files of other toolkits, in lower case with hyphens -> our labels."""

HEADER_WORDS = {
    "speaker": (
        "speaker",
        "spk",
        "speaker_id",
        "spk_id",
        "claimed_speaker",
        "model",
        "modelid",
        "model_id",
        "enrol",
        "enroll",
        "enrolment",
        "enrollment",
        "enrol_id",
        "enroll_id",
        "claim",
        "claimed_id",
        "client",
        "client_id",
    ),
    "utterance": (
        "utterance",
        "utt",
        "utterance_id",
        "utt_id",
        "filename",
        "file",
        "file_name",
        "file_id",
        "path",
        "segment",
        "segmentid",
        "segment_id",
        "test",
        "test_id",
        "trial",
        "audio",
        "audio_file",
        "wav",
    ),
    "label": (
        "label",
        "key",
        "target",
        "trial_type",
        "targettype",
        "target_type",
        "class",
        "ground_truth",
        "asv_label",
        "sasv_label",
    ),
    "cm_label": ("cm_label",),
    "score": ("score", "scores", "sasv_score", "llr", "similarity", "cosine"),
    "asv_score": ("asv_score",),
    "cm_score": ("cm_score",),
    "attack": ("attack", "attack_id", "spoof_type"),
    "subset": ("subset", "partition", "phase"),
}
HEADER_NAMES = {word: name for name, words in HEADER_WORDS.items() for word in words}
"""Column names in files of other toolkits, in lower case with underscores -> our names."""

NUMBERED_HEADERS = {"sasv_label": SASV_FUSION, "target": TARGET_OR_NOT}
"""Columns whose name defines the meaning of their numbers."""

DELIMITERS = ("\t", ";", ",", "|")


@dataclass(frozen=True)
class Layout:
    """The columns of a file without a header.

    Attributes:
        name: origin of such files.
        columns: our name of each column, SKIP for columns that are not read.
        kinds: type of each column: ``n`` a number, ``l`` a label in words, ``c`` bona fide or spoof
            in words, ``b`` 0 or 1, ``o`` the word "Output", ``.`` anything but a number, ``?``
            anything.
        numbers: meaning of labels written as numbers.
    """

    name: str
    columns: tuple[str, ...]
    kinds: str
    numbers: Mapping[str, str] = field(default_factory=dict)

    def matches(self, rows: Sequence[Sequence[str]]) -> bool:
        """Whether all rows match this layout."""
        return len(rows[0]) == len(self.kinds) and all(
            _is_kind(kind, cell) for row in rows for kind, cell in zip(self.kinds, row)
        )


LAYOUTS = (
    Layout(
        "ASVspoof 2021 DF key",
        (
            "speaker",
            "utterance",
            "codec",
            "source",
            "attack",
            "label",
            "trim",
            "subset",
            "vocoder",
            *[SKIP] * 4,
        ),
        ".....l.......",
    ),
    Layout(
        "ASVspoof 2021 PA key",
        ("speaker", "utterance", *[SKIP] * 7, "label", "trim", "subset"),
        ".........l..",
    ),
    Layout(
        "ASVspoof 5 list of track 1",
        ("speaker", "utterance", "gender", "codec", SKIP, SKIP, SKIP, "attack", "label", SKIP),
        "..??????l?",
    ),
    Layout(
        "ASVspoof 2021 LA key",
        ("speaker", "utterance", "codec", "transmission", "attack", "label", "trim", "subset"),
        ".....l..",
    ),
    Layout(
        "ASVspoof 2019 list of a countermeasure",
        ("speaker", "utterance", SKIP, "attack", "label"),
        "...?c",
    ),
    Layout(
        "ASVspoof 5 list of track 2", ("speaker", "utterance", "gender", "attack", "label"), "..??l"
    ),
    Layout("log of ASVspoof 2021 baselines", (SKIP, "utterance", SKIP, "score"), "o?bn"),
    Layout(
        "scores of SpeechBrain", ("speaker", "utterance", "label", "score"), "??bn", TARGET_OR_NOT
    ),
    Layout(
        "scores of ASVspoof 2019 countermeasures", ("utterance", "attack", "label", "score"), "??cn"
    ),
    Layout("labels with scores", ("speaker", "utterance", "label", "score"), "??ln"),
    Layout("scores with labels", ("speaker", "utterance", "score", "label"), "??nl"),
    Layout(
        "ASVspoof 2019 list of verification", ("speaker", "utterance", "attack", "label"), "???l"
    ),
    Layout("scores of ASVspoof 2019 verification", ("attack", "label", "score"), "?ln"),
    Layout("scores of a countermeasure with labels", ("utterance", "score", "label"), "?nc"),
    Layout(
        "scores of a countermeasure with labels as numbers", ("utterance", "label", "score"), ".bn"
    ),
    Layout("list of VoxCeleb", ("label", "speaker", "utterance"), "b..", TARGET_OR_NOT),
    Layout("scores", ("speaker", "utterance", "score"), "??n"),
    Layout("trials", ("speaker", "utterance", "label"), "??l"),
    Layout("scores of Kaldi with labels", ("score", "label"), "nl"),
    Layout("scores of utterances", ("utterance", "score"), "?n"),
)
"""The layouts in the order in which they are tried; the first that all rows match is used."""

LOOKED_AT = 200
"""Number of rows at the beginning of a file by which a layout is recognised."""


def layout_of(rows: Sequence[Sequence[str]]) -> Layout | None:
    """Return the layout of rows without a header, None if it is unknown.

    Some layouts differ only in a column that contains bona fide and spoof, so that all rows of such
    a column are checked.
    """
    looked_at = rows[:LOOKED_AT]
    found = (layout for layout in LAYOUTS if layout.matches(looked_at))
    return next((one for one in found if "c" not in one.kinds or one.matches(rows)), None)


def odd_row(rows: Sequence[Sequence[str]]) -> int | None:
    """Return the index of the only row that does not match the layout of all others; None if there
    are several such rows, or if the layout is unknown.
    """
    looked_at = rows[:LOOKED_AT]
    for layout in LAYOUTS:
        odd = [number for number, row in enumerate(looked_at) if not layout.matches([row])]
        if len(odd) == 1 and len(looked_at) > 2:
            return odd[0]
    return None


def header_names(cells: Sequence[str]) -> list[str] | None:
    """Return our name of each column if a line is a header, otherwise None.

    Letter case, quotes, spaces and hyphens do not matter. A line that contains a number is not a
    header.
    """
    plain = [_plain(cell, "_") for cell in cells]
    names = set(plain) & set(HEADER_NAMES) - set(LABEL_WORDS)  # "target" may also be a label
    if not names or any(is_number(cell) for cell in cells):
        return None
    ours = [HEADER_NAMES.get(name, name) for name in plain]
    # If there is a column "label", a column "class" means something else.
    return [name if our in plain else our for name, our in zip(plain, ours)]


def numbered_header(cells: Sequence[str]) -> Mapping[str, str]:
    """Return the meaning of labels written as numbers that the name of a column defines."""
    for cell in cells:
        meaning = NUMBERED_HEADERS.get(_plain(cell, "_"))
        if meaning is not None:
            return meaning
    return {}


def label_of(cell: str) -> str | None:
    """Return the label that a word means, None if the word is unknown."""
    return LABEL_WORDS.get(_plain(cell, "-"))


def split_rows(lines: Sequence[str], name: str) -> list[list[str]]:
    """Split lines into cells at tabs, semicolons, commas, bars or (if there are none) spaces.

    Cells may be quoted if the delimiter is not a space. Lines that are neither a header nor of a
    known layout when split in this way, but when split at any white space, are split at white
    space: Kaldi mixes tabs and spaces, and names may contain commas.

    Args:
        lines: the lines, none of which is empty.
        name: file name, for messages.

    Raises:
        TableError: a quotation mark at the start of a cell has no second one in its line.
    """
    spaced = [line.split() for line in lines]
    delimiter = next((mark for mark in DELIMITERS if mark in lines[0]), None)
    if delimiter is None:
        return spaced
    rows = _delimited(lines, delimiter)
    if not _is_readable(rows) and _is_readable(spaced):
        return spaced
    if len(rows) < len(lines) or _is_open(lines[-1], delimiter):
        # A quoted cell that is not closed would swallow the lines that follow.
        number = next(number for number, line in enumerate(lines, 1) if _is_open(line, delimiter))
        raise TableError(
            f"{name}, line {number}: a quotation mark opens a cell and none closes it; remove it, "
            "or close it in the same line"
        )
    return rows


def _delimited(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    rows = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    return [[cell.strip() for cell in row] for row in rows]


def _is_open(line: str, delimiter: str) -> bool:
    """Whether a cell of a line is quoted and its quotation mark is not closed."""
    return len(_delimited([line, "-"], delimiter)) == 1


def _is_readable(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row is a header, or the rows have a known layout."""
    return header_names(rows[0]) is not None or layout_of(rows) is not None


def parse_numbers(entries: Sequence[str]) -> dict[str, str]:
    """Parse the meaning of labels that are written as numbers or in other words (``0=spoof``).

    Raises:
        TableError: an entry is malformed, or a label is unknown.
    """
    found = {}
    for part in entries:
        written, _, label = part.partition("=")
        meant = label_of(label)
        if not written or meant is None:
            raise TableError(
                f"'{part}': write the meaning of a label as 0=spoof; the labels are "
                f"{', '.join(WORDS)}"
            )
        found[written.strip()] = meant
    return found


def is_number(cell: str) -> bool:
    """Whether a cell is a number, including NaN and infinity."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _is_kind(kind: str, cell: str) -> bool:
    if kind == "n":
        return is_number(cell)
    if kind == "l":
        return label_of(cell) is not None
    if kind == "c":
        return label_of(cell) in (BONA_FIDE, SPOOF)
    if kind == "b":
        return cell in ("0", "1")
    if kind == "o":
        return cell.lower() == "output"
    if kind == ".":
        return not is_number(cell)
    return True


def _plain(cell: str, joint: str) -> str:
    words = cell.strip().strip("\"'").lower().replace("-", " ").replace("_", " ").split()
    return joint.join(words)
