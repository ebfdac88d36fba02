"""Files written whole or not at all, and read with one-line errors."""

import contextlib
import fcntl
import gzip
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sasv.core.errors import SasvError, write_reason


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; move it into place on success, remove it on failure.

    The temporary name keeps the suffix, because array and plot writers choose a format by it.
    A failing write (full disk, no permission) is raised as SasvError and leaves any older file as it was.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.stem}.{os.getpid()}.part{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(target)
    except OSError as error:
        raise SasvError(f"{target}: cannot write: {write_reason(error)}; nothing was changed") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 text file atomically."""
    write_bytes(path, text.encode())


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write JSON atomically, indented."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_bytes(path: str | os.PathLike[str], most: int | None = None) -> bytes:
    """Read a file whole, gunzipped where its name ends in ``.gz``.

    Args:
        path: file.
        most: bytes that such a file has at most, for files that cannot be large.

    Raises:
        SasvError: the file is missing, cannot be read, or is larger than ``most``.
    """
    try:
        if most is not None and Path(path).stat().st_size > most:
            raise SasvError(f"{path}: larger than {most:,} bytes; is that the right file?")
        data = Path(path).read_bytes()
        return gzip.decompress(data) if os.fspath(path).endswith(".gz") else data
    except FileNotFoundError as error:
        raise SasvError(f"{path}: no such file; check the path") from error
    except (gzip.BadGzipFile, EOFError) as error:
        raise SasvError(f"{path}: broken gzip file ({error}); fetch it again") from error
    except OSError as error:
        raise SasvError(f"{path}: cannot read: {error.strerror or error}") from error


def read_lines(path: str | os.PathLike[str]) -> list[str]:
    """Read the non-empty lines of a text list (UTF-8, any line ends, gzip by its suffix)."""
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SasvError(f"{path}: not a UTF-8 text file ({error.reason} at byte {error.start})") from error
    return [line for line in text.splitlines() if line.strip()]


def sha256(*parts: bytes | str) -> str:
    """Return the hex digest of the parts, in order."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Return the hex digest of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def locked(
    folder: Path, held: str = "another run is writing here; wait for it, or choose another --out"
) -> Iterator[None]:
    """Hold a folder for this run, which ends with the process, however it ends; SasvError where another holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SasvError(f"{folder}: {held}") from None
        except OSError:  # a file system without locks
            pass
        yield
