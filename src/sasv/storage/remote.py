"""Objects in remote storage, read through fsspec (the extra ``sasv[remote]``).

Two kinds of request are made: for the properties of an object, and for a range of its bytes. Keys,
endpoints, and profiles come from the usual places: environment variables, the configuration files
of AWS and Google Cloud, and ``FSSPEC_S3_ENDPOINT_URL`` for other S3 servers.
"""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from sasv.core.errors import AudioError, MissingExtra, SasvError, StorageError, listed, reason_of
from sasv.storage.locations import scheme_of
from sasv.storage.resource import Resource

logger = logging.getLogger("sasv")

T = TypeVar("T")

SCHEMES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp", "https": "aiohttp"}
"""Scheme of an address -> the package that fsspec needs for it."""

PAUSES = (0.5, 1.0, 2.0, 4.0)
"""Seconds to wait after each failed attempt before the next one."""

CONNECT_SECONDS = 20
SILENT_SECONDS = 60
"""A connection that takes longer to open, or sends no data for this long, has failed."""


class WrongRange(Exception):
    """A server returned a different number of bytes than requested."""


@dataclass(frozen=True)
class RemoteObject(Resource):
    """An object in remote storage."""

    def read(self, start: int = 0, stop: int | None = None) -> bytes:
        """Return the bytes of a range, with a few retries after failures."""
        stop = self.size if stop is None else min(stop, self.size)
        return _persistently(self.name, lambda: self._range(start, stop))

    def _range(self, start: int, stop: int) -> bytes:
        whole = start == 0 and stop == self.size
        system = _system(scheme_of(self.name))
        data: bytes = system.cat_file(self.name, **({} if whole else {"start": start, "end": stop}))
        if len(data) == stop - start:
            return data
        if len(data) == self.size:
            raise StorageError(
                f"{self.name}: the server sent the whole object although only a range was "
                "requested; use a server that supports range requests, or copy the object to a "
                "local disk"
            )
        raise WrongRange(f"{len(data):,} bytes instead of {stop - start:,}")


@lru_cache(maxsize=1 << 16)
def remote_object(name: str) -> RemoteObject:
    """Return an object. Each process asks for its properties only once.

    Raises:
        AudioError: the object does not exist or is empty.
        StorageError: the network or the server fails, or access is denied.
        SasvError: the kind of address is unknown, or a package is missing.
    """
    scheme = scheme_of(name)
    if scheme not in SCHEMES:
        raise SasvError(
            f"{name}: addresses that begin with '{scheme}://' are not supported; use a path, or "
            f"one of: {listed([f'{known}://' for known in SCHEMES], 10)}"
        )
    info = _persistently(name, lambda: _system(scheme).info(name))
    size = info.get("size")
    if size is None:
        raise StorageError(
            f"{name}: the server does not report the size of the object; copy the object to a "
            "local disk"
        )
    if size == 0:
        raise AudioError(f"{name}: the object is empty (0 bytes); upload it again")
    marks = (info.get(key) for key in ("ETag", "etag", "LastModified", "updated", "mtime"))
    return RemoteObject(name, int(size), next((str(mark) for mark in marks if mark), ""))


def _persistently(name: str, ask: Callable[[], T]) -> T:
    """Make a request, and retry it after each failure that may be temporary."""
    for pause in (*PAUSES, None):
        try:
            return ask()
        except SasvError:
            raise
        except PermissionError as error:
            raise StorageError(
                f"{name}: access denied ({reason_of(error)}); check your credentials"
            ) from error
        except Exception as error:  # each storage client has its own errors
            if isinstance(error, FileNotFoundError) and not _hides_failure(error):
                raise AudioError(f"{name}: no such object; check the address") from error
            if pause is None:
                raise StorageError(
                    f"{name}: could not be fetched in {len(PAUSES) + 1} attempts "
                    f"({reason_of(error.__cause__ or error)}); check the network, then run the "
                    "same command again"
                ) from error
            logger.debug(f"{name}: {reason_of(error)}; next attempt in {pause:g} s")
            time.sleep(pause)
    raise AssertionError("unreachable")


def _hides_failure(error: FileNotFoundError) -> bool:
    """Whether a missing object is really a failure of the network or the server, which fsspec
    reports as a missing object over HTTP.
    """
    cause = error.__cause__
    if isinstance(cause, TimeoutError | ConnectionError):
        return True
    of_client = type(cause).__module__.startswith("aiohttp")
    return of_client and getattr(cause, "status", 0) not in (404, 410)


_systems: dict[tuple[int, str], Any] = {}


def _system(scheme: str) -> Any:
    """Return the file system of fsspec. A forked process needs its own."""
    key = (os.getpid(), scheme)
    if key not in _systems:
        _systems[key] = _opened(scheme)
    return _systems[key]


def _opened(scheme: str) -> Any:
    purpose = f"reading from {scheme}://"
    try:
        import fsspec

        options: dict[str, Any] = {}
        if scheme in ("http", "https"):
            import aiohttp

            timeout = aiohttp.ClientTimeout(
                total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS
            )
            options = {"client_kwargs": {"timeout": timeout}}
        elif scheme == "s3":
            limits = {"connect_timeout": CONNECT_SECONDS, "read_timeout": SILENT_SECONDS}
            options = {"config_kwargs": {**limits, "retries": {"total_max_attempts": 1}}}
        system = fsspec.filesystem(scheme, use_listings_cache=False, **options)
        if scheme == "s3":
            system.retries = 1  # requests are retried here, not by three layers at once
        return system
    except ImportError as error:
        package = "fsspec" if error.name == "fsspec" else SCHEMES[scheme]
        if package == "gcsfs":  # its releases and those of s3fs need different versions of fsspec
            raise SasvError(
                f"{purpose} needs gcsfs, which is not installed; pip install gcsfs"
            ) from error
        raise MissingExtra(package, "remote", purpose) from error
