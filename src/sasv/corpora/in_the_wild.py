"""In-the-Wild (Müller et al., Interspeech 2022): ``meta.csv`` (file, speaker, label) in the folder
of ``0.wav`` and so on.
"""

from pathlib import Path

from sasv.core.errors import SasvError
from sasv.corpora.base import CorpusLists, Utterance
from sasv.corpora.lists import label_of, read_csv, without_suffix
from sasv.corpora.tree import audio_below
from sasv.tables import NONE
from sasv.tables.labels import SPOOF


def read(folder: Path) -> CorpusLists:
    """Read the folder ``release_in_the_wild`` or its parent. The attacks are unknown."""
    root = folder
    if not (root / "meta.csv").exists():
        root = folder / "release_in_the_wild"
    meta = root / "meta.csv"
    if not meta.exists():
        raise SasvError(
            f"{folder}: contains no meta.csv; give the unpacked folder release_in_the_wild"
        )
    lists = CorpusLists(root, [], files=set(audio_below(root)))
    for row in read_csv(meta, ("file", "speaker", "label")):
        label = label_of(meta, row["label"], row["file"])
        attack = "unknown" if label == SPOOF else NONE
        name = without_suffix(row["file"])
        lists.utterances.append(Utterance(name, row["file"], row["speaker"], "all", label, attack))
    return lists
