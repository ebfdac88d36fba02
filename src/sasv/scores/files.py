"""Score and key files of challenges and other toolkits, read into score tables; the ASVspoof 5 submission, written.

Known: our tables; ASVspoof 5 (submission ``spk filename cm-score asv-score sasv-score`` and key ``spk filename cm-label
asv-label`` with headers, both protocols); ASVspoof 2019 and 2021 (scores of countermeasures and of verification, their
lists); VoxCeleb lists ``1 enrolment test`` with scores ``enrolment test score``; ``speaker utterance score label`` of
the a-DCF and ASVspoof 5 packages and WeSpeaker; SASV fusion tables ``asv_score,cm_score,sasv_label``.
"""

import gzip
from collections.abc import Sequence
from pathlib import Path

from sasv.audio.formats import SUFFIXES, suffix_of
from sasv.core.errors import TableError, some
from sasv.core.files import read_lines, write_text
from sasv.core.progress import say
from sasv.tables import NONE, Scores, Table, load_scores
from sasv.tables.labels import BONA_FIDE, TRIAL_LABELS

Columns = dict[str, list[str]]

NAMES = {
    "spk": "speaker",
    "filename": "utterance",
    "cm-score": "cm_score",
    "asv-score": "asv_score",
    "sasv-score": "score",
    "sasv_score": "score",
    "asv-label": "label",
    "cm-label": "cm_label",
    "sasv_label": "label",
}
"""Column names of others -> ours."""

SCORE_COLUMNS = ("score", "asv_score", "cm_score")
NUMBERED = {"0": "spoof", "1": "target", "2": "nontarget"}
"""Labels of SASV fusion tables."""

LABELS = (*TRIAL_LABELS, BONA_FIDE)
TRACK_2 = ("spk", "filename", "cm-score", "asv-score", "sasv-score")


def read_scores(path: str | Path, key: str | Path = "", column: str = "", cm: str | Path = "") -> Scores:
    """Read a score file of any known kind.

    Args:
        path: the score file.
        key: the trials with their labels, where the score file has none.
        column: which score is meant where the file holds several; empty takes ``score``, or the only one.
        cm: score file of a countermeasure, one score an utterance, to go beside as ``cm_score``.

    Raises:
        TableError: an unknown layout, a trial without a score, two scores of one trial, a key of another protocol.
    """
    if not (key or column or cm) and _is_ours(path):
        return load_scores(path)
    columns = _columns(Path(path))
    scores = [name for name in SCORE_COLUMNS if name in columns]
    if not scores:
        raise TableError(f"{path}: no column of scores; known are: {', '.join(SCORE_COLUMNS)} (or sasv-score ...)")
    if key:
        columns = _joined(path, columns, scores, key, _columns(Path(key)))
    if "label" not in columns:
        raise TableError(f"{path}: it does not say which trials are targets; give the key file or trial table (--key)")
    if cm:
        other = _columns(Path(cm))
        if "utterance" not in other or "utterance" not in columns:
            raise TableError(f"{cm}: scores of a countermeasure need the name of the utterance beside each")
        name = "score" if "score" in other else "cm_score"
        if name not in other:
            raise TableError(f"{cm}: no column of scores")
        found = _table_of(cm, list(zip(other["utterance"])), other[name])
        columns["cm_score"] = [found[one] for one in _all_in(found, list(zip(columns["utterance"])), cm, path)]
        columns.setdefault("asv_score", columns[scores[0]])
    if column and column not in columns:
        raise TableError(f"{path}: no column '{column}'; it has: {', '.join(columns)}")
    if not column and "score" not in columns and len(scores) > 1:
        raise TableError(f"{path}: holds {' and '.join(scores)}; say which is meant (--column {scores[0]})")
    columns["score"] = columns[column or ("score" if "score" in columns else scores[0])]
    rows = len(columns["score"])
    columns.setdefault("speaker", [NONE] * rows)
    columns.setdefault("utterance", list(map(str, range(1, rows + 1))))
    columns.setdefault("attack", [NONE] * rows)
    return Scores(Table.build({name: cells for name, cells in columns.items() if name != "cm_label"}, str(path)))


def _is_ours(path: str | Path) -> bool:
    """Whether a file is a score table of ours, which is read without a Python object per cell."""
    opener = gzip.open if str(path).endswith(".gz") else open
    try:
        with opener(path, "rb") as stream:
            header = stream.readline(4096).decode("utf-8-sig", "replace").rstrip("\r\n").split("\t")
    except OSError:
        return False  # reading it again says what is wrong
    return {"speaker", "utterance", "label", "score"} <= set(header)


def _columns(path: Path) -> Columns:
    """Return the columns of a score or key file by our names."""
    lines = read_lines(path)
    if not lines:
        raise TableError(f"{path}: empty file")
    first = lines[0]
    separator = "\t" if "\t" in first else "," if "," in first else None
    header = [cell.strip() for cell in first.split(separator)]
    known = {"label", "utterance", *SCORE_COLUMNS, *NAMES}
    if known & set(header):
        rows = [[cell.strip() for cell in line.split(separator)] for line in lines[1:]]
        names = [NAMES.get(name, name) for name in header]
    else:
        rows = [line.split() for line in lines]
        names = _headless(path, rows)
    for number, row in enumerate(rows, 1 + len(lines) - len(rows)):
        if len(row) != len(names):
            raise TableError(f"{path}, line {number}: {len(row)} cells instead of {len(names)}")
    columns = {name: list(cells) for name, cells in zip(names, zip(*rows))} if rows else {name: [] for name in names}
    columns.pop("", None)
    for name in SCORE_COLUMNS:
        if name in columns and set(columns[name]) <= {NONE}:
            del columns[name]
    if "label" not in columns and "cm_label" in columns:
        columns["label"] = columns["cm_label"]
    if "label" in columns:
        columns["label"] = _labels(path, columns["label"])
    if "attack" in columns:
        columns["attack"] = [NONE if cell == BONA_FIDE else cell for cell in columns["attack"]]
    for name in ("speaker", "utterance"):
        if name in columns:
            columns[name] = [_stem(cell) for cell in columns[name]]
    return columns


def _headless(path: Path, rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the names of the columns of a file without a header, "" for those of no use."""
    row, last = rows[0], {row[-1] for row in rows}
    count = len(row)
    if count == 10:  # ASVspoof 5, track 1
        return ["speaker", "utterance", "gender", "codec", "", "", "", "attack", "label", ""]
    if count == 8:  # ASVspoof 2021
        return ["speaker", "utterance", "codec", "", "attack", "label", "", ""]
    if count == 5 and last <= {BONA_FIDE, "spoof"} and (BONA_FIDE in last or row[2] == NONE):  # ASVspoof 2019, CM list
        return ["speaker", "utterance", "", "attack", "label"]
    if count == 5 and not _number(row[4]):  # ASVspoof 5, track 2
        return ["speaker", "utterance", "gender", "attack", "label"]
    if count == 4 and _number(row[2]) and last <= set(LABELS) | {"0", "1"}:
        return ["speaker", "utterance", "score", "label"]
    if count == 4 and _number(row[3]) and row[2] in LABELS:  # ASVspoof 2019, scores of a countermeasure
        return ["utterance", "attack", "label", "score"]
    if count == 4 and last <= set(LABELS):  # ASVspoof 2019, verification list
        return ["speaker", "utterance", "attack", "label"]
    if count == 3 and _number(row[2]) and row[1] in LABELS:  # ASVspoof 2019, scores of a verification system
        return ["attack", "label", "score"]
    if count == 3 and _number(row[2]):
        return ["speaker", "utterance", "score"]
    if count == 3 and row[0] in ("0", "1"):  # VoxCeleb
        return ["label", "speaker", "utterance"]
    if count == 3 and last <= set(LABELS):
        return ["speaker", "utterance", "label"]
    if count == 2 and _number(row[1]):
        return ["utterance", "score"]
    raise TableError(
        f"{path}: unknown layout (line 1: {' '.join(row)[:80]}); put a header line such as "
        "'speaker utterance label score', separated by tabs"
    )


def _labels(path: Path, cells: list[str]) -> list[str]:
    values = set(cells)
    if values <= {"0", "1"}:
        return ["target" if cell == "1" else "nontarget" for cell in cells]
    if {cell.removesuffix(".0") for cell in values} <= set(NUMBERED):
        return [NUMBERED[cell.removesuffix(".0")] for cell in cells]
    unknown = sorted(values - set(LABELS))
    if unknown:
        raise TableError(f"{path}: unknown label {some(unknown)}; known: {', '.join(LABELS)}")
    return cells


def _joined(path: str | Path, columns: Columns, scores: list[str], key: str | Path, wanted: Columns) -> Columns:
    """Return the trials of a key with the scores of a file."""
    if "label" not in wanted or "utterance" not in wanted:
        raise TableError(f"{key}: no key: it needs the name and the label of each trial")
    if "utterance" not in columns:
        if columns.get("label") != wanted["label"]:
            raise TableError(
                f"{path}: it names no trials, and its labels are not those of {key} row by row; is that another key?"
            )
        return wanted | {score: columns[score] for score in scores}
    by = ["speaker", "utterance"] if "speaker" in columns and "speaker" in wanted else ["utterance"]
    names = list(zip(*(columns[name] for name in by)))
    trials = list(zip(*(wanted[name] for name in by)))
    result = {name: cells for name, cells in wanted.items() if name not in SCORE_COLUMNS}
    for score in scores:
        found = _table_of(path, names, columns[score])
        result[score] = [found[trial] for trial in _all_in(found, trials, path, key)]
    unused = len(set(names) - set(trials))
    if unused:
        say(f"{path}: {unused} scores belong to no trial of {key}; they are left out")
    return result


def _table_of(path: str | Path, names: list[tuple[str, ...]], cells: list[str]) -> dict[tuple[str, ...], str]:
    """Return name -> cell; TableError where a name has two that differ."""
    found = dict(zip(names, cells))
    if len(found) < len(names):
        for name, cell in zip(names, cells):
            if found[name] != cell:
                raise TableError(f"{path}: {' '.join(name)} has two scores, {cell} and {found[name]}; keep one")
    return found


def _all_in(
    found: dict[tuple[str, ...], str], trials: list[tuple[str, ...]], path: str | Path, key: str | Path
) -> list[tuple[str, ...]]:
    missing = [" ".join(trial) for trial in trials if trial not in found]
    if len(missing) == len(trials):
        raise TableError(f"{path}: it has no trial of {key} ({some(missing, 2)}); is that the key of another protocol?")
    if missing:
        raise TableError(f"{path}: {len(missing)} of {len(trials)} trials of {key} have no score ({some(missing, 3)})")
    return trials


def write_submission(scores: Scores, path: str | Path, track: int = 2) -> None:
    """Write scores as ASVspoof 5 wants them: tab-separated, ``-`` where there is no score of a kind.

    Args:
        scores: with ``score`` (track 2: the SASV score; track 1: the countermeasure's) and, for track 2, ``asv_score``
            and ``cm_score`` where the system is a tandem.
        path: file to write.
        track: 1 (``filename cm-score``) or 2.
    """
    table = scores.table
    names = table.texts("utterance")
    if track == 1:
        found = _table_of(table.name, list(zip(names)), table.texts("score"))
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


def _number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
