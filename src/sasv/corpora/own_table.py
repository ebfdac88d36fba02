"""Tables that a user wrote: ``utterances.tsv``, with ``enrolments_PART.tsv`` and
``trials_PART.tsv`` in the same folder.
"""

from pathlib import Path

from sasv.core.errors import AudioError, SasvError
from sasv.corpora.base import CorpusLists, Trial, Utterance
from sasv.storage import container_of, joined, locate
from sasv.storage.locations import scheme_of
from sasv.tables import load_enrolments, load_trials, load_utterances

TRIES = 20
"""So many paths that are gone are looked for in vain before the others are taken for missing."""


def read(folder: Path) -> CorpusLists:
    """Read the tables of a folder, or a single utterance table; paths start from the folder of the
    table.

    Further columns are kept. Absolute paths that are gone are looked for where the table is now: a
    corpus and its tables may have moved together.
    """
    path = folder / "utterances.tsv" if folder.is_dir() else folder
    if not path.exists():
        raise SasvError(f"{path}: no such table; it needs the columns utterance, path, speaker")
    table = load_utterances(path).table
    have = [name for name in Utterance._fields if name in table.columns]
    columns = {name: table.texts(name) for name in have}
    rows = [
        Utterance(**{"split": "all", **dict(zip(have, values))})
        for values in zip(*columns.values())
    ]
    root = path.parent
    rows, notes = _moved(rows, root.resolve())
    files = {row.path for row in rows if _is_there(root, row.path)}
    lists = CorpusLists(root, rows, files=files, notes=notes)
    names = table.texts("utterance")
    others = [column for column in table.columns if column not in Utterance._fields]
    lists.extras = {column: dict(zip(names, table.texts(column))) for column in others}
    for found in sorted(root.glob("enrolments_*.tsv")):
        enrolments = load_enrolments(found)
        lists.enrolments[found.stem.partition("_")[2]] = dict(
            zip(enrolments.speakers, enrolments.utterances)
        )
    for found in sorted(root.glob("trials_*.tsv")):
        part = found.stem.partition("_")[2]
        if part not in lists.enrolments:
            raise SasvError(f"{found}: there is no enrolments_{part}.tsv beside it")
        trials = load_trials(found)
        cells = [trials.table.texts(column) for column in ("speaker", "utterance", "label")]
        lists.trials[part] = list(map(Trial, *cells, trials.attack_texts))
    return lists


def _is_there(root: Path, path: str) -> bool:
    """Whether a path leads somewhere; an object behind an address is asked for when it is read."""
    if container_of(path) == path:
        return bool(scheme_of(path)) or (root / path).exists()
    try:
        locate(joined(str(root), path))
    except AudioError:
        return False
    return True


def _moved(rows: list[Utterance], root: Path) -> tuple[list[Utterance], list[str]]:
    """Replace the beginning of absolute paths that are gone by the folder of the table, or by the
    one above it, where the rest of the path leads to a file there; return the rows and what was
    replaced.
    """
    replaced: dict[str, str] = {}
    tries = TRIES
    found = []
    for row in rows:
        path = Path(row.path)
        if path.is_absolute() and not path.exists():
            begin = next((old for old in replaced if path.is_relative_to(old)), None)
            if begin is None and tries:
                begin = _old_beginning(path, root, replaced)
                tries -= begin is None
            if begin is not None:
                new = Path(replaced[begin]) / path.relative_to(begin)
                row = row._replace(path=str(new))
        found.append(row)
    notes = [f"{old} is gone: its files are taken from {new}" for old, new in replaced.items()]
    return found, notes


def _old_beginning(path: Path, root: Path, replaced: dict[str, str]) -> str | None:
    """Return the beginning of a path that another folder can stand for, and note that folder."""
    for old in path.parents[::-1]:
        for new in (root, root.parent):
            if (new / path.relative_to(old)).is_file():
                replaced[str(old)] = str(new)
                return str(old)
    return None
