"""A user's own tables: ``utterances.tsv``, and ``enrolments_PART.tsv`` and ``trials_PART.tsv``
beside it.
"""

from pathlib import Path

from sasv.core.errors import SasvError
from sasv.corpora.base import CorpusLists, Trial, Utterance
from sasv.tables import load_enrolments, load_trials, load_utterances


def read(folder: Path) -> CorpusLists:
    """Read the tables of a folder, or a single utterance table; paths start from the folder of the
    table.

    Further columns are kept.
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
    files = {row.path for row in rows if (root / row.path).exists()}
    lists = CorpusLists(root, rows, files=files)
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
