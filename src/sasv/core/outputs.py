"""Checks the inputs and outputs of a command before it starts, so that no file of the user is
overwritten by accident.
"""

import contextlib
import gzip
import os
import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from sasv.core.errors import SasvError, write_reason
from sasv.core.files import parse_json, read_json, write_json
from sasv.core.version import __version__

MARK = ".sasv"
"""Name of the file that marks a folder as an output of sasv."""
ANY = "any"
"""Entry in the mark of a folder that stands for all commands."""
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
"""Outputs of versions that did not mark their folders: pattern -> keys of the JSON file; a pattern
without keys matches a folder.
"""
PACKAGE = Path(__file__).resolve().parents[1]
ZIP_COMMENT = b"sasv"
"""Comment of the zip archives (.model) that sasv writes."""
ONNX_PRODUCER = b"\x12\x04sasv"
"""Name of the producer in an ONNX file, behind the two bytes of its version."""
HEADERS = (
    {"speaker", "utterance", "score"},
    {"filename", "cm-score"},
    {"utterance", "path"},
    {"speaker", "utterance"},
)
"""Columns by which a table written by sasv is recognised."""
BACKEND_KEYS = ("kind", "columns", "costs")


class Output(NamedTuple):
    """An output file or output folder of a command.

    Attributes:
        option: the option that names the output.
        files: for a folder, patterns of the files that the command writes there; empty for a file.
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
    """Refuse outputs that would overwrite other data.

    Args:
        command: the command that writes the outputs.
        inputs: option -> paths that the command reads.
        speech: option -> folder of recordings, in which no output may be written.
        outputs: outputs and their paths; an output with an empty path is not written.
        force: also overwrite inputs and files that sasv did not write; never a device or a file of
            the sasv package.

    Raises:
        SasvError: an output is an input, is inside a folder of recordings, is a link, a device, a
            file of the sasv package, or a file that sasv did not write; or two outputs are the same
            file.
    """
    given = [(output, text) for output, text in outputs if text]
    for number, (output, text) in enumerate(given):
        path = Path(text)
        flag = _flag(output.option)
        if not output.files and text.endswith(("/", os.sep)) and not path.is_dir():
            raise SasvError(f"{flag} {text}: is the name of a folder; give the name of a file")
        if _inside(path, PACKAGE):
            raise SasvError(
                f"{flag} {path}: is inside the sasv package itself; choose another place"
            )
        for other, another in given[:number]:
            same = os.path.abspath(path) == os.path.abspath(another)
            if same or _same(path, Path(another)):
                raise SasvError(f"{flag} and {_flag(other.option)} are both {path}; give two names")
        targets = _targets(output, path)
        for target in targets:
            _check_kind(flag, target)
        if force:
            continue
        for option, folder in speech.items():
            if folder and Path(folder).is_dir() and _inside(path, Path(folder)):
                raise SasvError(
                    f"{flag} {path}: is inside the speech folder {_flag(option)} {folder}, where "
                    "later commands would mistake it for speech; choose another place, or give "
                    "--force"
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
    """Mark folders as outputs of sasv while a command writes into them and afterwards, with the
    names of the commands that wrote there.

    Folders into which the command writes nothing are left unchanged.

    Raises:
        SasvError: a folder is not writable.
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
    """Return the commands that the mark of a folder lists: none without a mark, ANY if the mark
    does not list them.
    """
    if not (folder / MARK).is_file():
        return []
    try:
        names: list[str] = read_json(folder / MARK, {"commands": list})["commands"]
    except SasvError:
        return [ANY]
    return names


def _names(folder: Path) -> set[str] | None:
    """Return the names of the entries of a folder, None if the folder does not exist."""
    return {entry.name for entry in folder.iterdir()} if folder.is_dir() else None


def refuse_inside_speech(out: str | os.PathLike[str], recordings: Iterable[str]) -> None:
    """Refuse an output folder that is inside a folder of the recordings that are read.

    Args:
        out: the output folder.
        recordings: paths of the recordings.

    Raises:
        SasvError: the output folder is, or is inside, a folder of a recording.
    """
    place = Path(os.path.realpath(out))
    around = {_identity(folder) for folder in (place, *place.parents)} - {None}
    for folder in {os.path.dirname(path) for path in recordings}:
        if folder not in ("", os.sep) and _identity(folder) in around:
            raise SasvError(
                f"--out {out}: is inside {folder}, among the recordings themselves; choose another "
                "folder"
            )


def _identity(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Return device and inode of a folder, None if the folder does not exist."""
    try:
        status = os.stat(path)  # noqa: PTH116 (pathlib is slower, and there may be many)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _targets(output: Output, path: Path) -> list[Path]:
    """Return the existing files that the command would replace."""
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
            f"{flag} {path}: contains {targets[0].relative_to(path)}, which was not written by "
            f"sasv {command}; choose another folder, or give --force to replace it"
        )


def marked(folder: Path, command: str) -> bool:
    """Whether a command of sasv has written into a folder. Marks of versions that recorded only one
    command, and outputs of versions that wrote no mark, count for all commands.
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
    """Whether a file is a JSON object that has these keys."""
    try:
        return set(read_json(path)) >= set(keys)
    except SasvError:
        return False


def written_by_sasv(path: Path) -> bool:
    """Whether a file looks as if sasv wrote it: a table, a back-end, a checkpoint, an exported
    model, or an empty file.
    """
    try:
        if path.stat().st_size == 0:
            return True
        with open(path, "rb") as stream:
            start = stream.read(8)
            if start[:2] == b"PK":
                with zipfile.ZipFile(path) as archive:
                    return archive.comment == ZIP_COMMENT
            if path.suffix == ".onnx":
                return start[2:] == ONNX_PRODUCER
            if len(start) == 8 and path.suffix == ".safetensors":
                header = parse_json(stream.read(min(int.from_bytes(start, "little"), 100_000_000)))
                return "sasv" in header.get("__metadata__", {})
        if path.suffix == ".json":
            return _has_keys(path, BACKEND_KEYS)
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as stream:
            names = set(stream.readline(4096).decode("utf-8-sig").rstrip("\r\n").split("\t"))
        return any(names >= columns for columns in HEADERS)
    except (OSError, EOFError, ValueError, AttributeError, RecursionError):
        return False
    except (zipfile.BadZipFile, zlib.error):
        return False


def _same(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except (OSError, ValueError):
        return False


def _inside(path: Path, folder: Path) -> bool:
    """Whether a path is the folder itself or inside it, after resolving links."""
    try:
        return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
    except (OSError, ValueError):
        return False


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"
