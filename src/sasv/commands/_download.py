"""sasv download."""

from dataclasses import dataclass
from pathlib import Path

from sasv.core.options import Count, Options, PositiveFloat
from sasv.weights import catalogue, fetch
from sasv.weights.fetch import RETRIES, TIMEOUT, fetch_all


@dataclass
class DownloadOptions(Options):
    """Download weights. An interrupted download resumes with the same command.

    Args:
        names: names listed by ``sasv models``, identifiers ``org/name`` of the Hugging Face hub, or
            all for all weights released with the paper.
        mirror: URL or folder that holds the files, instead of Google Drive; for an identifier of
            the hub, the URL of another hub.
        renew: accept a file that differs from the one downloaded before.
        retries: number of retries of a transfer that breaks off or stalls.
        timeout: seconds without data after which a transfer counts as stalled.
    """

    names: list[str]
    mirror: str = ""
    renew: bool = False
    retries: Count = RETRIES
    timeout: PositiveFloat = TIMEOUT


def download(options: DownloadOptions) -> list[Path]:
    """Download weights and return their paths. Failed downloads are named at the end."""
    names = options.names
    if names == ["all"]:
        files = {entry.file: entry.name for entry in reversed(catalogue().values()) if entry.drive}
        names = list(reversed(files.values()))

    def one(name: str) -> Path:
        return fetch(name, options.mirror, options.renew, options.retries, options.timeout)

    return fetch_all(names, one)
