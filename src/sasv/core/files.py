"""Atomic writes, reads with one-line errors, and locks that reserve a folder for one run."""

import contextlib
import functools
import gzip
import hashlib
import io
import json
import math
import os
import platform
import re
import stat
import sys
import warnings
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sasv.core.errors import SasvError, write_reason

GUNZIPPED_BYTES = 1 << 28
LARGEST_RATIO = 100
"""A gzip file that expands to more than GUNZIPPED_BYTES and to more than LARGEST_RATIO times its
size is refused: tables compress by a factor of 5 to 20.
"""
NOT_TEXT = (".parquet", ".zip", ".bz2", ".xz", ".zst", ".7z", ".npy", ".npz", ".xlsx")
"""Suffixes of other formats. Readers, ours among them, choose the format by the suffix."""
LONGEST_NAME = 255
"""Maximum length of a file name in bytes on common file systems."""
TEMPORARY = re.compile(r"\..*\.([0-9a-f]{8})-(\d+)\.part(\.[^.]*)?")
"""Name of a temporary file: its final name, then the machine and the process that write it."""


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path next to ``path``. The file is moved into place on success and removed
    on failure.

    The temporary name keeps the suffix, because writers of arrays and plots choose the format by
    it. The new file gets the permissions of the file that it replaces. If ``path`` is a link, the
    file that it points to is replaced.

    Raises:
        SasvError: ``path`` is a folder or a device, or writing fails (full disk, no permission). An
            existing file is left unchanged.
    """
    path = system_path(os.fspath(path))
    target = Path(os.path.realpath(path)) if _is_link(path) else Path(path)
    temporary = temporary_path(target)
    try:
        before = _status(target)
        if before is not None and not stat.S_ISREG(before.st_mode):
            kind = "a folder" if stat.S_ISDIR(before.st_mode) else "a device or a pipe"
            raise SasvError(f"{path}: is {kind}, not a file; choose another name for the result")
        target.parent.mkdir(parents=True, exist_ok=True)
        _clear_once(target.parent, os.getpid())
        yield temporary
        with open(temporary, "rb") as stream:
            os.fsync(stream.fileno())
        if before is not None:
            _keep_permissions(temporary, before)
        temporary.replace(target)
    except OSError as error:
        raise SasvError(
            f"{path}: cannot write: {write_reason(error)}; nothing was changed"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def system_path(path: str) -> str:
    """Return a path in the form in which the operating system finds it. In an ASCII locale, a name
    that was read from a UTF-8 table has to be converted to its bytes.
    """
    if sys.getfilesystemencoding() == "utf-8":
        return path
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return os.fsdecode(path.encode("utf-8", "surrogateescape"))
    return path


def temporary_path(target: Path) -> Path:
    """Return the temporary path, next to ``target``, to which this process writes it."""
    tail = f".{_machine()}-{os.getpid()}.part{target.suffix}"
    room = LONGEST_NAME - len(os.fsencode(tail)) - 1
    stem = target.stem
    encoded = os.fsencode(stem)
    if len(encoded) > room:
        digest = digest_of_bytes(encoded)[:8]
        stem = encoded[: max(room - len(digest), 1)].decode("ascii", "ignore") + digest
    return target.with_name(f".{stem}{tail}")


def clear_temporaries(folder: Path) -> None:
    """Remove temporary files in a folder that were left by killed processes of this machine."""
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(folder)):
            found = TEMPORARY.fullmatch(entry.name)
            if found and found[1] == _machine() and not _lives(int(found[2])):
                with contextlib.suppress(OSError):
                    Path(entry.path).unlink()


@functools.lru_cache(maxsize=4096)
def _clear_once(folder: Path, process: int) -> None:
    """Remove old temporary files from a folder when this process first writes there."""
    clear_temporaries(folder)


def _is_link(path: str | os.PathLike[str]) -> bool:
    try:
        return Path(path).is_symlink()
    except OSError:  # the name is too long; the write reports it
        return False


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _keep_permissions(new: Path, before: os.stat_result) -> None:
    """Copy the permissions and, where allowed, the owner of the file that is replaced."""
    with contextlib.suppress(OSError, AttributeError):
        os.chown(new, before.st_uid, before.st_gid)
    with contextlib.suppress(OSError):
        new.chmod(stat.S_IMODE(before.st_mode))


@functools.cache
def _machine() -> str:
    """Return eight characters that identify this machine."""
    return hashlib.sha256(platform.node().encode(errors="replace")).hexdigest()[:8]


def _lives(process: int) -> bool:
    """Whether a process of this machine is running, as far as this can be found out safely."""
    if os.name == "nt":  # on Windows, signal 0 would end the process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def zipped(data: bytes, path: str | os.PathLike[str]) -> bytes:
    """Return bytes as ``read_bytes`` expects them in a file of this name: compressed if it ends in
    ``.gz``. The same bytes always give the same file.
    """
    return gzip.compress(data, mtime=0) if os.fspath(path).endswith(".gz") else data


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 text file atomically, compressed if its name ends in ``.gz``.

    Raises:
        SasvError: the text cannot be written in UTF-8, or the name is that of another format.
    """
    suffix = Path(path).suffix.lower()
    if suffix in NOT_TEXT:
        raise SasvError(
            f"{path}: this file is text, not {suffix[1:]}; choose a name that ends "
            "in .tsv, .txt, or .gz"
        )
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        before = re.split(r"[\n\t]", text[: error.start])[-1]
        after = re.split(r"[\n\t]", text[error.start :])[0]
        name = os.fsencode(before + after)
        raise SasvError(
            f"{path}: the name {name!r} is not UTF-8 and cannot be written; rename it"
        ) from error
    write_bytes(path, zipped(data, path))


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write JSON atomically, indented."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # escapes preserve a file name that is not UTF-8
        text = json.dumps(value, indent=1)
    write_text(path, text + "\n")


def read_json(
    path: str | os.PathLike[str],
    shape: Mapping[str, type | tuple[type, ...]] | None = None,
    optional: Mapping[str, type | tuple[type, ...]] | None = None,
    kind: type = dict,
    remedy: str = "remove it and run the same command again",
) -> Any:
    """Read JSON that an earlier run wrote, and check its structure.

    Args:
        path: the JSON file.
        shape: required keys -> the types of their values.
        optional: optional keys -> the types of their values.
        kind: expected type of the whole: dict or list.
        remedy: what the message tells the user to do if the file is damaged.

    Raises:
        SasvError: the file is missing, is not JSON (for instance cut short by a kill or a full
            disk), contains a number that is not finite, or has another structure.
    """
    try:
        value = parse_json(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise SasvError(
            f"{path}: invalid JSON ({' '.join(str(error).split())[:100]}); {remedy}"
        ) from error
    if kind not in type(value).__mro__:
        raise SasvError(
            f"{path}: contains no {'object' if kind is dict else kind.__name__}; {remedy}"
        )
    for key, allowed in {**(shape or {}), **(optional or {})}.items():
        if key not in value:
            if key not in (shape or {}):
                continue
            raise SasvError(f"{path}: has no '{key}'; {remedy}")
        types = allowed if isinstance(allowed, tuple) else (allowed,)
        if not isinstance(value[key], types) or (
            isinstance(value[key], bool) and bool not in types
        ):
            wanted = " or ".join(part.__name__ for part in types)
            raise SasvError(f"{path}: '{key}' is not of type {wanted}; {remedy}")
    return value


def parse_json(text: bytes | str) -> Any:
    """Parse JSON in which every number is finite.

    Raises:
        ValueError: the text is not JSON, or contains NaN, an infinity, or a number out of range.
        RecursionError: the text is nested too deeply.
    """
    return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is out of range")
    return value


def read_bytes(path: str | os.PathLike[str], most: int | None = None) -> bytes:
    """Read a whole file, decompressed if its name ends in ``.gz``.

    Args:
        path: the file.
        most: maximum size in bytes, for files that cannot be large; None for no limit.

    Raises:
        SasvError: the file is missing, cannot be read, is a folder or a device, is larger than
            ``most``, or expands to far more than a table would.
    """
    try:
        status = Path(path).stat()
        if stat.S_ISDIR(status.st_mode):
            raise SasvError(f"{path}: is a folder, not a file")
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISFIFO(status.st_mode):
            raise SasvError(f"{path}: is a device, not a file")
        if most is not None and status.st_size > most:
            raise SasvError(f"{path}: larger than {most:,} bytes; is this the right file?")
        with open(path, "rb", opener=_open_at_once) as stream:
            data = stream.read()
        return _gunzip(data, path) if os.fspath(path).endswith(".gz") else data
    except FileNotFoundError as error:
        raise SasvError(f"{path}: no such file; check the path") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise SasvError(f"{path}: damaged gzip file ({error}); download it again") from error
    except (OSError, ValueError) as error:
        reason = write_reason(error) if isinstance(error, OSError) else str(error)
        raise SasvError(f"{path}: cannot be read: {reason}") from error


def _open_at_once(path: str, flags: int) -> int:
    """Open a file without blocking, so that a pipe without a writer reads as empty."""
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    if hasattr(os, "O_NONBLOCK"):
        os.set_blocking(descriptor, True)
    return descriptor


def _gunzip(data: bytes, path: str | os.PathLike[str]) -> bytes:
    most = max(GUNZIPPED_BYTES, LARGEST_RATIO * len(data))
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
        text = stream.read(most + 1)
    if len(text) > most:
        raise SasvError(
            f"{path}: decompresses to more than {most:,} bytes, which is too large for a table or "
            "list"
        )
    return text


def other_than_text(data: bytes) -> str:
    """Return the kind of file that the first bytes indicate, with the remedy, if the file is not
    UTF-8 text; otherwise an empty string.
    """
    if data.startswith(b"PK\x03\x04"):
        return "a spreadsheet, not a table; save it as tab-separated text"
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16 text; save it as UTF-8"
    if data.startswith(b"\x1f\x8b"):
        return "compressed by gzip; give the file the suffix .gz"
    return ""


def read_lines(path: str | os.PathLike[str]) -> list[str]:
    """Read the non-empty lines of a text file: UTF-8, any line ends, decompressed if the name ends
    in ``.gz``.
    """
    data = read_bytes(path)
    other = other_than_text(data)
    if other:
        raise SasvError(f"{path}: {other}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SasvError(
            f"{path}: not a UTF-8 text file ({error.reason} at byte {error.start})"
        ) from error
    return [line for line in text.splitlines() if line.strip()]


def digest_of_bytes(*parts: bytes | str) -> str:
    """Return the SHA-256 of the parts, in order, as hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode(errors="surrogateescape") if isinstance(part, str) else part)
    return digest.hexdigest()


def digest_of_file(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's bytes as hexadecimal digits.

    Raises:
        SasvError: the file cannot be read.
    """
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise SasvError(f"{path}: cannot be read: {write_reason(error)}") from error


@contextlib.contextmanager
def locked(
    folder: Path, held: str = "another run is writing here; wait for it, or choose another --out"
) -> Iterator[None]:
    """Lock a folder for this run. The lock is released when the process ends, however it ends;
    forked workers do not inherit it.

    Temporary files of killed processes are removed from the folder.

    Args:
        folder: the folder to lock; created if it is missing.
        held: the message if another run holds the lock.

    Raises:
        SasvError: another run holds the lock, or the folder is not writable.
    """
    from filelock import FileLock, Timeout

    path = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            raise SasvError(f"{path}: this is a link, not the lock of a run; remove it")
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # on a file system without locks, the existence of a file serves as the lock
            lock = FileLock(path).acquire(timeout=0)
    except Timeout:
        raise SasvError(f"{folder}: {held}") from None
    except OSError as error:
        raise SasvError(f"{folder}: cannot write to this folder: {write_reason(error)}") from error
    with lock:
        clear_temporaries(folder)
        yield
