"""Where weights are stored on this machine, and to which file a name refers. This module never uses
the network.
"""

import difflib
import os
import re
from pathlib import Path

import platformdirs

from sasv.core.errors import CheckpointError, listed
from sasv.weights.catalogue import FOLDER, Entry, catalogue

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
HUB_FILE = "model.safetensors"
SUFFIXES = (".safetensors", ".model", ".pt", ".pth", ".bin", ".ckpt")


def weights_folder() -> Path:
    """Return the folder of downloaded weights: ``$SASV_HOME``, or ``sasv`` in the user's cache
    folder.

    The cache folder is that of the operating system, unless only the folder of earlier versions
    (``~/.cache/sasv``) exists.
    """
    given = os.environ.get("SASV_HOME")
    if given:
        return Path(given)
    usual = Path(platformdirs.user_cache_dir("sasv", appauthor=False))
    earlier = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sasv"
    return earlier if earlier.is_dir() and not usual.is_dir() else usual


def is_hub_id(name: str) -> bool:
    """Whether a name has the form ``org/name`` of the Hugging Face hub."""
    return bool(HUB_ID.fullmatch(name)) and not name.endswith(SUFFIXES)


def place_of(name: str) -> Path:
    """Return the path of the file of an entry of the catalogue or of an identifier of the hub,
    whether or not it has been downloaded.
    """
    entry = catalogue().get(name)
    if entry is None:
        return weights_folder() / name.replace("/", "--") / HUB_FILE
    if entry.bundled:
        return FOLDER / entry.file
    folder = entry.name if entry.source else Path(entry.file).stem
    return weights_folder() / folder / entry.file


def is_local(entry: Entry) -> bool:
    """Whether weights are on this machine."""
    return place_of(entry.name).is_file()


def resolve(name: str | os.PathLike[str]) -> Path:
    """Return the file to which a path, a name listed by ``sasv models``, or an identifier
    ``org/name`` of the hub refers.

    A folder, as toolkits and hubs distribute models, refers to the weights file in it.

    Raises:
        CheckpointError: the file is not on this machine (the message says how to download it), or a
            folder contains no weights file or several.
    """
    text = os.fspath(name)
    if Path(text).is_file():
        return Path(text)
    if Path(text).is_dir() and text not in catalogue():
        return weights_in(Path(text))
    entry = catalogue().get(text)
    known = entry is not None or is_hub_id(text)
    if known and place_of(text).is_file():
        return place_of(text)
    if entry is not None and not (entry.bundled or entry.drive or entry.source):
        raise CheckpointError(
            f"{text}: the authors never released these weights; train them with sasv reproduce"
        )
    if entry is not None or (known and not Path(text).parent.is_dir()):
        raise CheckpointError(
            f"{text}: not on this machine; download it with: sasv download {text}"
        )
    close = difflib.get_close_matches(text, list(catalogue()), 3, 0.75)
    hint = (
        f"; did you mean {' or '.join(close)}?"
        if close
        else "; check the path (sasv models lists names)"
    )
    raise CheckpointError(f"{text}: there is no such checkpoint{hint}")


def weights_in(folder: Path) -> Path:
    """Return the weights file in a folder: the only one, or ``model.safetensors``. Raises
    CheckpointError if there is none, or there are several others.
    """
    found = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
    if len(found) == 1:
        return found[0]
    if folder / HUB_FILE in found:
        return folder / HUB_FILE
    what = f"several ({listed([path.name for path in found])})" if found else "none"
    raise CheckpointError(
        f"{folder}: a folder given as a checkpoint must contain one weights file "
        f"({', '.join(SUFFIXES)}), but this one contains {what}; give the path of the file"
    )
