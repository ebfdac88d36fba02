"""sasv download."""

from dataclasses import dataclass
from pathlib import Path

from sasv.core.options import Count, Options, PositiveFloat
from sasv.weights import catalogue, fetch
from sasv.weights.fetch import RETRIES, TIMEOUT, fetch_all


@dataclass
class DownloadOptions(Options):
    """Fetch weights; the same command goes on where it broke off.

    Args:
        names: of ``sasv models`` (all: every released one), or hub ids ``org/name``.
        mirror: URL or folder that holds the files, in place of Google Drive; of a hub id the URL of
            another hub.
        renew: accept a file that differs from the one that came first.
        retries: of a transfer that breaks off or stalls.
        timeout: seconds without a byte that count as stalled.
    """

    names: list[str]
    mirror: str = ""
    renew: bool = False
    retries: Count = RETRIES
    timeout: PositiveFloat = TIMEOUT


def download(options: DownloadOptions) -> list[Path]:
    """Fetch weights and return their files; those that failed are named at the end."""
    names = options.names
    if names == ["all"]:
        files = {entry.file: entry.name for entry in reversed(catalogue().values()) if entry.drive}
        names = list(reversed(files.values()))

    def one(name: str) -> Path:
        return fetch(name, options.mirror, options.renew, options.retries, options.timeout)

    return fetch_all(names, one)
