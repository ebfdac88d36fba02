"""Regular files on this machine."""

import os
import stat
from dataclasses import dataclass

from sasv.core.errors import AudioError
from sasv.core.files import system_path
from sasv.storage.resource import Resource


def native_path(name: str) -> str | bytes:
    """Return the path in the form that the operating system expects: bytes on POSIX, so that a name
    need not be valid UTF-8.
    """
    return os.fsencode(system_path(name)) if os.name == "posix" else name


@dataclass(frozen=True)
class LocalFile(Resource):
    """A regular file."""

    @property
    def path(self) -> str | bytes:
        """The path in the form that the operating system expects."""
        return native_path(self.name)

    def read(self, start: int = 0, stop: int | None = None) -> bytes:
        """Return the bytes of a range. Raises AudioError if the file cannot be read."""
        try:
            with open(self.path, "rb") as stream:
                stream.seek(start)
                return stream.read(-1 if stop is None else stop - start)
        except OSError as error:
            raise AudioError(
                f"{self.name}: cannot be read ({error.strerror or error}); check its permissions"
            ) from error


def local_file(name: str) -> LocalFile:
    """Return a regular, non-empty file. Raises AudioError, which says what the path is instead, for
    anything else.
    """
    try:
        status = os.stat(native_path(name))  # noqa: PTH116 (a path of bytes)
    except FileNotFoundError as error:
        raise AudioError(f"{name}: no such file; check the path") from error
    except NotADirectoryError as error:
        raise AudioError(
            f"{name}: no such file (a part of the path is a file); check the path"
        ) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise AudioError(f"{name}: cannot be opened ({reason}); check the path") from error
    if stat.S_ISDIR(status.st_mode):
        raise AudioError(f"{name}: this is a folder, not an audio file")
    if not stat.S_ISREG(status.st_mode):
        raise AudioError(
            f"{name}: this is a pipe or a device, not a regular file; write the audio to a file "
            "first"
        )
    if status.st_size == 0:
        raise AudioError(f"{name}: the file is empty (0 bytes); download or convert it again")
    return LocalFile(name, status.st_size, str(status.st_mtime_ns))
