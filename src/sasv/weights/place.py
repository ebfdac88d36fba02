"""Where weights are stored on this machine, and which file a name refers to. Nothing here uses the
network.
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
    """Return the folder of fetched weights: ``$SASV_HOME``, or ``sasv`` in the user's cache folder.

    The cache folder is that of the operating system, unless only the folder of earlier versions
    (``~/.cache/sasv``) is there.
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
    """Return where the file of catalogued weights, or of a hub id, lies or would lie."""
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
    """Return the file that a path, a name of ``sasv models`` or a hub id ``org/name`` stands for.

    A folder, as toolkits and hubs distribute models, stands for the file of weights in it.

    Raises:
        CheckpointError: it is not on this machine; the message says what fetches it. Or a folder
            holds no weights, or several files of them.
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
            f"{text}: the authors never released these weights; train them: sasv reproduce"
        )
    if entry is not None or (known and not Path(text).parent.is_dir()):
        raise CheckpointError(f"{text}: not on this machine; fetch it: sasv download {text}")
    close = difflib.get_close_matches(text, list(catalogue()), 3, 0.75)
    hint = (
        f"; did you mean {' or '.join(close)}?"
        if close
        else "; check the path (sasv models lists names)"
    )
    raise CheckpointError(f"{text}: no such checkpoint{hint}")


def weights_in(folder: Path) -> Path:
    """Return the file of weights in a folder: the only one, or ``model.safetensors``.
    CheckpointError if there is none, or there are several.
    """
    found = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
    if len(found) == 1:
        return found[0]
    if folder / HUB_FILE in found:
        return folder / HUB_FILE
    what = f"several ({listed([path.name for path in found])})" if found else "none"
    raise CheckpointError(
        f"{folder}: a folder; it should hold one file of weights ({', '.join(SUFFIXES)}), and "
        f"contains {what}; give the file"
    )
