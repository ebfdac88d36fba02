"""LibriSpeech (Panayotov et al. 2015) and corpora in the same layout:
``SUBSET/SPEAKER/CHAPTER/NAME.flac``.
"""

import re
from pathlib import Path

from sasv.core.errors import SasvError
from sasv.corpora.base import CorpusLists, Utterance
from sasv.corpora.tree import audio_below

LAYOUT = re.compile(r"(?:(?:.*/)?([^/]+)/)?([^/]+)/[^/]+/([^/]+)\.\w+$")


def read(folder: Path) -> CorpusLists:
    """Read the tree. ``folder`` is LibriSpeech, its parent, or a single subset."""
    root = folder / "LibriSpeech" if (folder / "LibriSpeech").is_dir() else folder
    files = audio_below(root)
    rows = []
    for path in files:
        match = LAYOUT.match(path)
        if match is not None:
            rows.append(Utterance(match[3], path, match[2], match[1] or root.name))
    if not rows:
        raise SasvError(
            f"{folder}: contains no audio in the form SUBSET/SPEAKER/CHAPTER/NAME; give the "
            "unpacked LibriSpeech folder"
        )
    return CorpusLists(root, rows, files=set(files))
