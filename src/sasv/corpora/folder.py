"""A folder with one subfolder for each speaker, which contains all speech of that speaker."""

from pathlib import Path

from sasv.core.errors import SasvError
from sasv.corpora.base import CorpusLists, Utterance, readable_name
from sasv.corpora.lists import without_suffix
from sasv.corpora.tree import audio_below


def read(folder: Path) -> CorpusLists:
    """Read ``SPEAKER/**/NAME.suffix``. The name of an utterance is its path without the suffix."""
    files = audio_below(folder)
    rows = []
    for path in files:
        speaker, slash, _ = path.partition("/")
        if slash:
            rows.append(
                Utterance(readable_name(without_suffix(path)), path, readable_name(speaker), "all")
            )
    if not rows:
        raise SasvError(
            f"{folder}: contains no audio in subfolders; put the files of each speaker into a "
            "separate subfolder"
        )
    return CorpusLists(folder, rows, files=set(files))
