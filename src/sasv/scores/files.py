"""Reads score and key files of challenges and other toolkits into score tables, and writes ASVspoof
5 submissions.

``sasv.scores.layouts`` lists the known layouts; docs/metrics.md shows them.
"""

import gzip
import logging
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sasv.audio.formats import SUFFIXES, suffix_of
from sasv.core.errors import TableError, listed
from sasv.core.files import read_lines, write_text
from sasv.scores.layouts import (
    SKIP,
    WORDS,
    header_names,
    is_number,
    label_of,
    layout_of,
    numbered_header,
    odd_row,
    parse_numbers,
    split_rows,
)
from sasv.tables import BONA_FIDE, NONE, Scores, Table, load_scores

logger = logging.getLogger("sasv")

Columns = dict[str, list[str]]

SCORE_COLUMNS = ("score", "asv_score", "cm_score")
TRACK_2 = ("spk", "filename", "cm-score", "asv-score", "sasv-score")
EVALUATION_SUBSET = "eval"
"""Default selection from a key that has several subsets (ASVspoof 2021)."""


def read_scores(
    path: str | Path,
    key: str | Path = "",
    column: str = "",
    cm: str | Path = "",
    where: str = "",
    columns: Sequence[str] = (),
    labels: Sequence[str] = (),
) -> Scores:
    """Read a score file of any known layout.

    Args:
        path: the score file.
        key: the key file with the trials and their labels, if the score file has none.
        column: the score to read, if the file has several; empty reads ``score`` or the only one.
        cm: score file of a countermeasure with one score per utterance, which becomes the column
            ``cm_score``.
        where: keep the trials with this ``column=value`` (several values separated by commas).
            Empty keeps the subset ``eval`` if the column ``subset`` has this value, and otherwise
            all trials.
        columns: names of the columns of the score file, ``-`` for one that is not read; empty
            recognises the layout.
        labels: meaning of labels that are numbers or unknown words: ``0=spoof``, ``1=bonafide``.

    Raises:
        TableError: the layout is unknown, the meaning of a label is not stated, a trial has no
            score or two different ones, or the key belongs to another protocol.
    """
    if not (key or column or cm or where or columns or labels) and _is_ours(path):
        found = load_scores(path)
        return _subset(found, "")
    meaning = parse_numbers(labels)
    cells, first_line = _columns(Path(path), columns, meaning)
    scores = [name for name in SCORE_COLUMNS if name in cells]
    if not scores:
        raise TableError(
            f"{path}: there is no score column, whose name may be {', '.join(SCORE_COLUMNS)}, or "
            "sasv-score ...; name the columns of the file with --columns"
        )
    if key:
        wanted, first_line = _columns(Path(key), (), meaning)
        cells = _joined(path, cells, scores, key, wanted)
    if "label" not in cells:
        raise TableError(
            f"{path}: does not say which trials are targets; give the key file or trial table "
            "(--key)"
        )
    if cm:
        _add_countermeasure(cells, scores[0], cm, path)
    if column and column not in cells:
        raise TableError(
            f"{path}: there is no column '{column}'; the columns are: {', '.join(cells)}"
        )
    if not column and "score" not in cells and len(scores) > 1:
        raise TableError(
            f"{path}: contains the score columns {' and '.join(scores)}; choose one (--column "
            f"{scores[0]})"
        )
    cells["score"] = cells[column or ("score" if "score" in cells else scores[0])]
    rows = len(cells["score"])
    cells.setdefault("speaker", [NONE] * rows)
    cells.setdefault("utterance", list(map(str, range(1, rows + 1))))
    cells.setdefault("attack", [NONE] * rows)
    table = Table.build(
        {name: values for name, values in cells.items() if name != "cm_label"}, str(path)
    )
    table.lines = np.arange(first_line, first_line + len(table))
    return _subset(Scores(table), where)


def _subset(scores: Scores, where: str) -> Scores:
    """Return the trials that satisfy a condition; without one, the evaluation subset if there are
    several subsets.
    """
    if not where:
        if "subset" not in scores.table.columns:
            return scores
        names = scores.table.codes("subset")[1]
        if EVALUATION_SUBSET not in names or len(names) == 1:
            return scores
        where = f"subset={EVALUATION_SUBSET}"
        others = ", ".join(name for name in names if name != EVALUATION_SUBSET)
        logger.info(
            "%s: using the trials with %s; the file also contains %s (--where subset=...)",
            scores.table.name,
            where,
            others,
        )
    return Scores(scores.table.where(where))


def _add_countermeasure(cells: Columns, score: str, cm: str | Path, path: str | Path) -> None:
    """Add the scores of a countermeasure to those of a speaker system."""
    other, _ = _columns(Path(cm))
    if "utterance" not in other or "utterance" not in cells:
        raise TableError(f"{cm}: each score of a countermeasure needs the name of its utterance")
    name = "score" if "score" in other else "cm_score"
    if name not in other:
        raise TableError(f"{cm}: there is no score column; name the columns with --columns")
    found = _by_name(cm, list(zip(other["utterance"])), other[name])
    cells["cm_score"] = [
        found[one] for one in _all_in(found, list(zip(cells["utterance"])), cm, path)
    ]
    cells.setdefault("asv_score", cells[score])


def _is_ours(path: str | Path) -> bool:
    """Whether a file is a score table of sasv, which is read without a Python object per cell."""
    opener = gzip.open if str(path).endswith(".gz") else open
    if not Path(path).is_file():  # a pipe can be read only once
        return False
    try:
        with opener(path, "rb") as stream:
            header = stream.readline(4096).decode("utf-8-sig", "replace").rstrip("\r\n").split("\t")
    except (OSError, EOFError, zlib.error):
        return False  # the general reader will report the problem
    return {"speaker", "utterance", "label", "score"} <= set(header)


def _columns(
    path: Path, named: Sequence[str] = (), meaning: dict[str, str] | None = None
) -> tuple[Columns, int]:
    """Return the columns of a score or key file under the names that sasv uses, and the line number
    of their first row.
    """
    lines = read_lines(path)
    if not lines:
        raise TableError(f"{path}: the file is empty")
    rows = split_rows(lines, str(path))
    header = header_names(rows[0])
    numbers = dict(numbered_header(rows[0]) if header else {}) | (meaning or {})
    if header:
        rows = rows[1:]
    if named:
        names = [SKIP if name == "-" else name for name in named]
        if not header and _is_foreign_header(names, rows):
            logger.info("%s: line 1 is treated as a header", path)
            rows = rows[1:]
    elif header:
        names = header
    else:
        layout = layout_of(rows)
        if layout is None:
            odd = odd_row(rows)
            if odd:
                raise TableError(
                    f"{path}, line {odd + 1}: differs in form from the lines around it "
                    f"({' '.join(rows[odd])[:80]}); correct or remove it"
                )
            raise TableError(
                f"{path}: unknown layout (line 1: {' '.join(rows[0])[:80]}); add a header line "
                "such as 'speaker utterance label score', separated by tabs, or name the columns "
                "with --columns"
            )
        names = list(layout.columns)
        numbers = dict(layout.numbers) | numbers
    first_line = 1 + len(lines) - len(rows)
    for number, row in enumerate(rows, first_line):
        if len(row) != len(names):
            raise TableError(f"{path}, line {number}: {len(row)} cells instead of {len(names)}")
    repeated = [name for name in set(names) - {SKIP} if names.count(name) > 1]
    if repeated:
        raise TableError(
            f"{path}: two columns have the name {repeated[0]}; name the columns with --columns"
        )
    columns = {name: [row[at] for row in rows] for at, name in enumerate(names)}
    columns.pop(SKIP, None)
    for name in SCORE_COLUMNS:
        if name in columns and set(columns[name]) <= {NONE}:
            del columns[name]
    if "label" not in columns and "cm_label" in columns:
        columns["label"] = columns["cm_label"]
    if "label" in columns:
        columns["label"] = _labels(path, columns["label"], numbers, first_line)
    if "attack" in columns:
        columns["attack"] = [
            NONE if label_of(cell) == BONA_FIDE else cell for cell in columns["attack"]
        ]
    for name in ("speaker", "utterance"):
        if name in columns:
            columns[name] = [_stem(cell) for cell in columns[name]]
    for name in SCORE_COLUMNS:
        if name in columns:
            table = Table.build({name: columns[name]}, str(path))
            table.lines = np.arange(first_line, first_line + len(table))
            table.numbers(name)
    return columns, first_line


def _is_foreign_header(names: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row has no number in the column in which the second row has a score."""
    at = next((at for at, name in enumerate(names) if name in SCORE_COLUMNS), None)
    if at is None or len(rows) < 2 or len(rows[0]) != len(names) or len(rows[1]) != len(names):
        return False
    return not is_number(rows[0][at]) and is_number(rows[1][at])


def _labels(path: Path, cells: list[str], numbers: dict[str, str], first_line: int) -> list[str]:
    """Return the label that each cell means. Raise TableError if the meaning of a cell is not
    stated.
    """
    meanings = {}
    for cell in set(cells):
        whole = cell.removesuffix(".0")
        meanings[cell] = numbers.get(cell) or numbers.get(whole) or label_of(cell)
    unknown = sorted(cell for cell, label in meanings.items() if label is None)
    if unknown and all(is_number(cell) for cell in unknown):
        raise TableError(
            f"{path}: the labels are numbers ({listed(unknown)}) and the file does not say what "
            "they mean; give their meaning with --labels 0=spoof,1=bonafide or --labels "
            "0=nontarget,1=target"
        )
    if unknown:
        raise TableError(
            f"{path}, line {first_line + cells.index(unknown[0])}: unknown label "
            f"{listed(unknown)}; known labels are {', '.join(WORDS)}; give the meaning of others "
            "with --labels"
        )
    return [str(meanings[cell]) for cell in cells]


def _joined(
    path: str | Path, columns: Columns, scores: list[str], key: str | Path, wanted: Columns
) -> Columns:
    """Return the trials of a key with the scores of a file."""
    if "label" not in wanted or "utterance" not in wanted:
        raise TableError(
            f"{key}: this is not a key, which must contain the name and the label of each trial"
        )
    if "utterance" not in columns:
        if columns.get("label") != wanted["label"]:
            raise TableError(
                f"{path}: does not name its trials, and its labels differ from those of {key} row "
                "by row; is this the right key?"
            )
        return wanted | {score: columns[score] for score in scores}
    by = ["speaker", "utterance"] if "speaker" in columns and "speaker" in wanted else ["utterance"]
    names = list(zip(*(columns[name] for name in by)))
    trials = list(zip(*(wanted[name] for name in by)))
    result = {name: cells for name, cells in wanted.items() if name not in SCORE_COLUMNS}
    for score in scores:
        found = _by_name(path, names, columns[score])
        result[score] = [found[trial] for trial in _all_in(found, trials, path, key)]
    unused = len(set(names) - set(trials))
    if unused:
        logger.info("%s: %d scores belong to no trial of %s; they are left out", path, unused, key)
    return result


def _by_name(
    path: str | Path, names: list[tuple[str, ...]], cells: list[str]
) -> dict[tuple[str, ...], str]:
    """Return name -> cell. Raise TableError if a name has two different cells."""
    found = dict(zip(names, cells))
    if len(found) < len(names):
        for name, cell in zip(names, cells):
            if found[name] != cell:
                raise TableError(
                    f"{path}: {' '.join(name)} has two scores, {cell} and {found[name]}; keep one"
                )
    return found


def _all_in(
    found: dict[tuple[str, ...], str],
    trials: list[tuple[str, ...]],
    path: str | Path,
    key: str | Path,
) -> list[tuple[str, ...]]:
    missing = [" ".join(trial) for trial in trials if trial not in found]
    if len(missing) == len(trials):
        raise TableError(
            f"{path}: contains no trial of {key} ({listed(missing, 2)}); is this the key of "
            "another protocol?"
        )
    if missing:
        raise TableError(
            f"{path}: {len(missing)} of {len(trials)} trials of {key} have no score "
            f"({listed(missing, 3)})"
        )
    return trials


def write_submission(scores: Scores, path: str | Path, track: int = 2) -> None:
    """Write scores in the submission format of ASVspoof 5: tab-separated, with ``-`` for a missing
    type of score.

    Args:
        scores: the scores. ``score`` is the SASV score for track 2, and the score of the
            countermeasure for track 1. For track 2, a tandem system also has ``asv_score`` and
            ``cm_score``.
        path: file to write.
        track: 1 (``filename cm-score``) or 2.

    Raises:
        TableError: there is no such track.
    """
    table = scores.table
    names = table.texts("utterance")
    if track == 1:
        found = _by_name(table.name, list(zip(names)), table.texts("score"))
        rows = [["filename", "cm-score"], *([name, score] for (name,), score in found.items())]
    elif track == 2:
        wanted = ("speaker", "utterance", "cm_score", "asv_score", "score")
        empty = [NONE] * len(names)
        cells = [table.texts(name) if name in table.columns else empty for name in wanted]
        rows = [list(TRACK_2), *map(list, zip(*cells))]
    else:
        raise TableError(f"ASVspoof 5 has the tracks 1 and 2, not {track}")
    write_text(path, "".join("\t".join(row) + "\n" for row in rows))


def _stem(name: str) -> str:
    suffix = suffix_of(name)
    return name[: -len(suffix)] if suffix in SUFFIXES else name
