"""MLAAD (Müller et al., IJCNN 2024): ``fake/LANGUAGE/MODEL/*.wav`` with a ``meta.csv`` in each
folder. All speech is spoofed.
"""

from pathlib import Path

from sasv.core.errors import SasvError
from sasv.corpora.base import CorpusLists, Utterance
from sasv.corpora.lists import read_csv, without_suffix
from sasv.corpora.tree import audio_below
from sasv.tables import NONE
from sasv.tables.labels import SPOOF

GENDERS = ("female", "male", "mix")


def read(folder: Path) -> CorpusLists:
    """Read the tree. ``folder`` is the unpacked corpus, or its folder ``fake``.

    The attack is the name of the model's folder. The speaker is the reader of the original
    recording according to its path in M-AILABS; if the path names none, the model is used as the
    speaker.
    """
    metas = sorted(folder.glob("**/meta.csv"))
    if not metas:
        raise SasvError(
            f"{folder}: contains no LANGUAGE/MODEL/meta.csv; give the unpacked MLAAD folder"
        )
    files = set(audio_below(folder))
    lists = CorpusLists(folder, [], files=files)
    columns: dict[str, dict[str, str]] = {"language": {}, "architecture": {}, "source": {}}
    for meta in metas:
        place = meta.parent.relative_to(folder)
        for row in read_csv(meta, ("path",), "|"):
            path = (place / Path(row["path"]).name).as_posix()
            name = without_suffix(path)
            original = row.get("original_file", "")
            model = meta.parent.name
            lists.utterances.append(
                Utterance(name, path, _speaker(original) or model, "all", SPOOF, model)
            )
            columns["language"][name] = row.get("language", "") or meta.parent.parent.name
            columns["architecture"][name] = row.get("architecture", "") or NONE
            columns["source"][name] = without_suffix(original) or NONE
    lists.extras = columns
    return lists


def _speaker(original: str) -> str:
    """Return the reader named by a path
    ``en_US/by_book/female/mary_ann/midnight_passenger/wavs/...``, "" if it names none.
    """
    parts = Path(original).parts
    for gender, reader in zip(parts, parts[1:-1]):
        if gender in GENDERS:
            return reader
    return ""
