"""Tables written by the user: ``utterances.tsv``, with ``enrolments_PART.tsv`` and
``trials_PART.tsv`` in the same folder.
"""

from pathlib import Path

from sasv.core.errors import AudioError, SasvError
from sasv.corpora.base import CorpusLists, Trial, Utterance
from sasv.storage import container_of, joined, locate
from sasv.storage.locations import scheme_of
from sasv.tables import load_enrolments, load_trials, load_utterances

TRIES = 20
"""After this many unsuccessful searches for missing paths, the other paths count as missing too."""


def read(folder: Path) -> CorpusLists:
    """Read the tables of a folder, or a single utterance table. Paths are relative to the folder of
    the table.

    Further columns are kept. Missing absolute paths are searched for relative to the present place
    of the table, because a corpus and its tables may have been moved together.
    """
    path = folder / "utterances.tsv" if folder.is_dir() else folder
    if not path.exists():
        raise SasvError(
            f"{path}: there is no such table; it must have the columns utterance, path, and speaker"
        )
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
            raise SasvError(f"{found}: there is no enrolments_{part}.tsv in the same folder")
        trials = load_trials(found)
        cells = [trials.table.texts(column) for column in ("speaker", "utterance", "label")]
        lists.trials[part] = list(map(Trial, *cells, trials.attack_texts))
    return lists


def _is_there(root: Path, path: str) -> bool:
    """Whether a path exists. A remote object counts as existing; reading it will tell."""
    if container_of(path) == path:
        return bool(scheme_of(path)) or (root / path).exists()
    try:
        locate(joined(str(root), path))
    except AudioError:
        return False
    return True


def _moved(rows: list[Utterance], root: Path) -> tuple[list[Utterance], list[str]]:
    """Replace the beginning of missing absolute paths by the folder of the table or its parent, if
    the rest of the path then leads to a file. Return the rows, and a note for each replacement.
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
    notes = [f"{old} is missing; its files are read from {new}" for old, new in replaced.items()]
    return found, notes


def _old_beginning(path: Path, root: Path, replaced: dict[str, str]) -> str | None:
    """Return the beginning of a path that another folder can replace, and note that folder."""
    for old in path.parents[::-1]:
        for new in (root, root.parent):
            if (new / path.relative_to(old)).is_file():
                replaced[str(old)] = str(new)
                return str(old)
    return None
