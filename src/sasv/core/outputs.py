"""Checks the inputs and outputs of a command before it begins, so that no file of the user is
overwritten without being asked for.
"""

import contextlib
import os
import stat
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from sasv.core.errors import SasvError, write_reason
from sasv.core.files import parse_json, read_json, write_json
from sasv.core.version import __version__

MARK = ".sasv"
"""File that says that a folder is an output of sasv."""
ANY = "any"
"""Stands for all commands in the mark of a folder."""
EARLIER_MARKS = {
    "step.json": ("facts", "done"),
    "*/*/step.json": ("facts", "done"),
    "options.json": ("utterances", "out", "encoder"),
    "embeddings.json": ("signature",),
    "embeddings/embeddings.json": ("signature",),
    "audio/*/settings.json": ("seed", "weights"),
    "metrics.json": ("task", "costs", "groups"),
    "parts-????????????": (),
    "embeddings/parts-????????????": (),
}
"""What versions without the mark left in their folders: pattern -> keys of the JSON; without keys,
a folder.
"""
PACKAGE = Path(__file__).resolve().parents[1]
ZIP_COMMENT = b"sasv"
"""Comment of the zip archives (.model) that sasv writes."""
HEADERS = (
    {"speaker", "utterance", "score"},
    {"filename", "cm-score"},
    {"utterance", "path"},
    {"speaker", "utterance"},
)
"""Columns by which a table that sasv wrote is recognised."""
BACKEND_KEYS = ("kind", "columns", "costs")


class Output(NamedTuple):
    """Where a command writes.

    Attributes:
        option: the option that names it.
        files: of a folder, patterns of the files that the command writes there; empty for an option
            that names a file.
    """

    option: str
    files: tuple[str, ...] = ()


def check_outputs(
    command: str,
    inputs: Mapping[str, Iterable[str]],
    speech: Mapping[str, str],
    outputs: Sequence[tuple[Output, str]],
    force: bool = False,
) -> None:
    """Refuse outputs that would destroy something.

    Args:
        command: that writes them.
        inputs: option -> paths that the command reads.
        speech: option -> folder of speech, into which no output belongs.
        outputs: each with the path that is given for it; one with an empty path is not written.
        force: overwrite inputs and files of others all the same; never a device or a file of the
            package.

    Raises:
        SasvError: an output is an input, lies in a folder of speech, is a link, a device, a file of
            the package, or a file that sasv did not write; or two outputs are the same file.
    """
    given = [(output, Path(path)) for output, path in outputs if path]
    for number, (output, path) in enumerate(given):
        flag = _flag(output.option)
        if _inside(path, PACKAGE):
            raise SasvError(
                f"{flag} {path}: lies in the package of sasv itself; choose another place"
            )
        for other, another in given[:number]:
            if os.path.abspath(path) == os.path.abspath(another) or _same(path, another):
                raise SasvError(f"{flag} and {_flag(other.option)} are both {path}; give two names")
        targets = _targets(output, path)
        for target in targets:
            _check_kind(flag, target)
        if force:
            continue
        for option, folder in speech.items():
            if folder and Path(folder).is_dir() and _inside(path, Path(folder)):
                raise SasvError(
                    f"{flag} {path}: lies in the speech of {_flag(option)} {folder}, where it "
                    "would be taken for speech later; choose another place, or give --force"
                )
        for target in targets:
            for option, paths in inputs.items():
                for source in paths:
                    if source and _same(Path(source), target):
                        raise SasvError(
                            f"{flag} {path}: {target} is also an input ({_flag(option)}); choose "
                            "another name, or give --force to overwrite it"
                        )
        _check_ours(command, flag, output, path, targets)


@contextlib.contextmanager
def marked_outputs(folders: Sequence[str], command: str) -> Iterator[None]:
    """Note in folders, while a command writes into them and afterwards, that they are outputs of
    sasv, and of which commands.

    Folders into which the command then wrote nothing are left as they were.

    Raises:
        SasvError: a folder cannot be written to.
    """
    new = []
    try:
        for folder in map(Path, folders):
            before = _writers(folder)
            if ANY not in before and command not in before:
                earlier = [ANY] if not before and _left_by_earlier_versions(folder) else before
                new.append((folder, _names(folder), before))
                _mark(folder, [*earlier, command])
        yield
    finally:
        for folder, names, before in new:
            with contextlib.suppress(OSError, SasvError):
                if _names(folder) != (names or set()) | {MARK}:
                    continue
                if before:
                    _mark(folder, before)
                    continue
                (folder / MARK).unlink()
                if names is None:
                    folder.rmdir()


def _mark(folder: Path, commands: Sequence[str]) -> None:
    write_json(folder / MARK, {"commands": list(commands), "sasv": __version__})


def _writers(folder: Path) -> list[str]:
    """Return the commands that wrote into a folder by its mark: none without a mark, ANY if it
    does not say.
    """
    if not (folder / MARK).is_file():
        return []
    try:
        names: list[str] = read_json(folder / MARK, {"commands": list})["commands"]
    except SasvError:
        return [ANY]
    return names


def _names(folder: Path) -> set[str] | None:
    """Return the names of what lies in a folder, None if there is no folder."""
    return {entry.name for entry in folder.iterdir()} if folder.is_dir() else None


def refuse_inside_speech(out: str | os.PathLike[str], recordings: Iterable[str]) -> None:
    """Refuse an output folder that lies in a folder of the recordings that are read.

    Args:
        out: folder to write to.
        recordings: paths of the recordings.
    """
    place = Path(os.path.realpath(out))
    around = {_identity(folder) for folder in (place, *place.parents)} - {None}
    for folder in {os.path.dirname(path) for path in recordings}:
        if folder not in ("", os.sep) and _identity(folder) in around:
            raise SasvError(
                f"--out {out}: lies in {folder}, among the recordings themselves; choose another "
                "folder"
            )


def _identity(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Return what tells a folder from all others, None if there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116 (pathlib is slower, and there may be many)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _targets(output: Output, path: Path) -> list[Path]:
    """Return the files that are there and would be replaced."""
    if not output.files:
        return [path] if os.path.lexists(path) else []
    if path.exists() and not path.is_dir():
        raise SasvError(f"{_flag(output.option)} {path}: is a file, not a folder")
    return [found for pattern in output.files for found in sorted(path.glob(pattern))]


def _check_kind(flag: str, target: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        try:
            mode = target.stat().st_mode
        except OSError as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise SasvError(f"{flag} {target}: {write_reason(error)}") from error
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise SasvError(
                f"{flag} {target}: is a device or a pipe, not a file; choose another name"
            )


def _check_ours(
    command: str, flag: str, output: Output, path: Path, targets: Sequence[Path]
) -> None:
    links = [target for target in targets if target.is_symlink()]
    if links:
        raise SasvError(
            f"{flag} {links[0]}: is a link; give the file that it points to, or --force"
        )
    if not output.files:
        if targets and path.is_dir():
            raise SasvError(f"{flag} {path}: is a folder, not a file")
        if targets and not written_by_sasv(path):
            raise SasvError(
                f"{flag} {path}: exists already and was not written by sasv; choose another name, "
                "or give --force to replace it"
            )
        return
    if targets and not marked(path, command):
        raise SasvError(
            f"{flag} {path}: contains {targets[0].relative_to(path)}, which sasv {command} did not "
            "write there; choose another folder, or give --force to replace it"
        )


def marked(folder: Path, command: str) -> bool:
    """Whether a command of sasv has written into a folder. Marks of versions that named only one
    command, and what versions without marks left, hold for all commands.
    """
    writers = _writers(folder)
    if writers:
        return ANY in writers or command in writers
    return _left_by_earlier_versions(folder)


def _left_by_earlier_versions(folder: Path) -> bool:
    for pattern, keys in EARLIER_MARKS.items():
        for found in folder.glob(pattern):
            if found.is_dir() if not keys else _has_keys(found, keys):
                return True
    return False


def _has_keys(path: Path, keys: Sequence[str]) -> bool:
    """Whether a file is JSON with these keys."""
    try:
        return set(read_json(path)) >= set(keys)
    except SasvError:
        return False


def written_by_sasv(path: Path) -> bool:
    """Whether a file looks like one that sasv writes: a table, a back-end, a checkpoint, or an
    empty file.
    """
    try:
        if path.stat().st_size == 0:
            return True
        with open(path, "rb") as stream:
            start = stream.read(8)
            if start[:2] == b"PK":
                with zipfile.ZipFile(path) as archive:
                    return archive.comment == ZIP_COMMENT
            if len(start) == 8 and path.suffix == ".safetensors":
                header = parse_json(stream.read(min(int.from_bytes(start, "little"), 100_000_000)))
                return "sasv" in header.get("__metadata__", {})
        if path.suffix == ".json":
            return _has_keys(path, BACKEND_KEYS)
        with open(path, "rb") as stream:
            names = set(stream.readline(4096).decode("utf-8-sig").rstrip("\r\n").split("\t"))
        return any(names >= columns for columns in HEADERS)
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile, RecursionError):
        return False


def _same(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except (OSError, ValueError):
        return False


def _inside(path: Path, folder: Path) -> bool:
    """Whether a path is a folder or lies below it, links resolved."""
    try:
        return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
    except (OSError, ValueError):
        return False


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"
