"""Identifies a recording without reading it: a file by its real path, its size, and its
modification time, and a member of a tar by its checksum.
"""

import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from sasv.core.errors import AudioError
from sasv.core.files import digest_of_bytes
from sasv.storage.locate import locate
from sasv.storage.locations import container_of, scheme_of

THREADS = 8
BLOCK = 4096


def file_identity(path: str | os.PathLike[str]) -> str:
    """Return a string that changes if a path leads to another file or the file is rewritten."""
    return _identity(os.fspath(path), {})


def file_identities(paths: Sequence[str]) -> list[str]:
    """Return the identity of each file (see ``file_identity``). Threads are used, so that a million
    files take seconds.
    """
    folders: dict[str, str] = {}

    def block(start: int) -> list[str]:
        return [_identity(path, folders) for path in paths[start : start + BLOCK]]

    with ThreadPoolExecutor(THREADS) as pool:
        return [
            identity for part in pool.map(block, range(0, len(paths), BLOCK)) for identity in part
        ]


def identity_digest(*parts: object) -> str:
    """Return a short digest of the parts of an identity, for use in tables and logs."""
    return digest_of_bytes("\n".join(map(str, parts)).encode("utf-8", "surrogateescape"))[:16]


def _identity(path: str, folders: dict[str, str]) -> str:
    """Return the identity. The real path of each folder is looked up only once."""
    if scheme_of(path) or container_of(path) != path:
        return _identity_elsewhere(path)
    try:
        status = os.lstat(path)  # noqa: PTH116 (pathlib is many times slower)
        if stat.S_ISLNK(status.st_mode):
            real = os.path.realpath(path)
            status = os.stat(real)  # noqa: PTH116
        else:
            folder, name = os.path.split(path)
            if folder not in folders:
                folders[folder] = os.path.realpath(folder)
            real = os.path.join(folders[folder], name)
    except (OSError, ValueError):
        return f"{path}\tmissing"
    return f"{real}\t{status.st_size}\t{status.st_mtime_ns}"


def _identity_elsewhere(path: str) -> str:
    """Return the identity of an object, or of a member of a tar."""
    try:
        found = locate(path)
    except AudioError:
        return f"{path}\tmissing"
    real = path
    if not scheme_of(path):
        container = container_of(path)
        real = os.path.realpath(container) + path[len(container) :]
    return f"{real}\t{found.size}\t{found.version}"
