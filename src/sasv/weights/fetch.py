"""Downloads weights from Google Drive, any URL or folder (gdown), or the Hugging Face hub
(huggingface_hub).

Public weights of other toolkits are downloaded from their distributors (see ``elsewhere``).

gdown and huggingface_hub resume and retry downloads. This module adds a lock, checks the downloaded
file, and records its checksum.
"""

import contextlib
import logging
import random
import re
import shutil
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sasv.core.errors import CheckpointError, MissingExtra, SasvError, listed
from sasv.core.files import (
    atomic_path,
    digest_of_file,
    locked,
    parse_json,
    read_json,
    write_json,
)
from sasv.core.progress import Progress
from sasv.weights.catalogue import Entry, catalogue
from sasv.weights.elsewhere import fetch_public
from sasv.weights.place import HUB_FILE, is_hub_id, place_of

logger = logging.getLogger("sasv")

RETRIES = 5
TIMEOUT = 30.0
NOTE: dict[str, type | tuple[type, ...]] = {"source": str, "sha256": str, "date": str}
"""Fields of the JSON file that is written beside downloaded weights."""
BUSY = (429, 500, 502, 503, 504)
"""HTTP statuses after which the request is repeated."""


def fetch(
    name: str,
    mirror: str = "",
    renew: bool = False,
    retries: int = RETRIES,
    timeout: float = TIMEOUT,
) -> Path:
    """Download weights and return their path. A complete file is not downloaded again.

    Args:
        name: a name listed by ``sasv models``, or an identifier ``org/name`` of the hub.
        mirror: URL or folder that contains the files listed by ``sasv models``, instead of Google
            Drive; for an identifier of the hub, the URL of another hub.
        renew: accept a file that differs from the one downloaded before.
        retries: number of retries of a transfer that breaks off or stalls.
        timeout: seconds without data after which a transfer counts as stalled.

    Raises:
        SasvError: the name is unknown, the network cannot be reached, the host returned a web page
            instead of the file, the file is damaged, its checksum differs from the recorded one, or
            another process is downloading it.
    """
    entry = catalogue().get(name)
    if entry is None and not is_hub_id(name):
        raise CheckpointError(
            f"{name}: there are no weights of this name; sasv models lists the names, and models "
            "of the hub are given as org/name"
        )
    if entry is not None and entry.bundled:  # a file in the package is never replaced
        return place_of(name)
    if entry is not None and not entry.drive and not entry.source and not mirror:
        raise CheckpointError(
            f"{name}: the authors never released these weights; train them with sasv reproduce"
        )
    target = place_of(name)
    with locked(target.parent, "another process is downloading these weights; wait for it"):
        note = target.with_name(target.name + ".json")
        kept: dict[str, Any] = read_json(note, NOTE) if note.is_file() else {}
        if target.is_file() and not renew:
            if digest_of_file(target) == kept.get("sha256"):
                logger.info(f"{target}: already downloaded, with checksum {kept['sha256'][:12]}")
                return target
            logger.info(f"{target}: changed since it was downloaded; downloading it again")
        download = target.with_name(f"new-{target.name}")
        if entry is None:
            source = _hub(name, download, mirror)
        elif entry.source and not mirror:
            source = fetch_public(entry, download)
        else:
            source = _file(entry, download, mirror, retries, timeout)
        try:
            check_whole(download)
            digest = digest_of_file(download)
            if kept and kept["sha256"] != digest and not renew:
                raise SasvError(
                    f"{source}: the checksum is {digest[:12]}, but that of the file downloaded "
                    f"from {kept['source']} on {kept['date']} was {kept['sha256'][:12]}; use "
                    "--renew to accept the new file"
                )
        except SasvError:
            download.unlink(missing_ok=True)
            raise
        download.replace(target)
        size = target.stat().st_size
        day = time.strftime("%Y-%m-%d")
        write_json(
            note, {"name": name, "source": source, "sha256": digest, "bytes": size, "date": day}
        )
    logger.info(f"{target}: {size / 1e6:.1f} MB, sha256 {digest}")
    return target


def _file(entry: Entry, download: Path, mirror: str, retries: int, timeout: float) -> str:
    """Fetch the file of an entry of the catalogue; return its source."""
    if mirror and "://" not in mirror:
        original = Path(mirror) / entry.file
        if not original.is_file():
            raise SasvError(f"{original}: the mirror does not contain this file; check --mirror")
        with atomic_path(download) as temporary:
            shutil.copyfile(original, temporary)
        return str(original)
    try:
        import gdown
        import requests
    except ImportError as error:
        raise MissingExtra("gdown", "hub", "fetching weights") from error
    source = (
        f"{mirror.rstrip('/')}/{entry.file}"
        if mirror
        else f"https://drive.google.com/uc?id={entry.drive}"
    )
    anew = False
    for attempt in range(retries + 2):
        try:
            with _bar(entry.name) as bar:
                gdown.download(
                    source,
                    str(download),
                    quiet=True,
                    use_cookies=False,
                    resume=True,
                    retries=retries,
                    timeout=timeout,
                    progress=bar,
                )
            return source
        except gdown.exceptions.FileURLRetrievalError as error:
            raise SasvError(f"{source}: {_words(error)}; {QUOTA}") from error
        except gdown.exceptions.DownloadError as error:
            parts = list(download.parent.glob(f"{download.name}*.part"))
            if (
                not anew and parts and ("byte range" in str(error) or len(parts) > 1)
            ):  # it cannot be resumed
                for part in parts:
                    part.unlink()
                anew = True
                continue
            raise SasvError(
                f"{source}: {_words(error)}; run the same command again to resume"
            ) from error
        except requests.RequestException as error:
            code = getattr(error.response, "status_code", None)
            if code in BUSY and attempt < retries:
                time.sleep(random.uniform(0, min(2**attempt, 30)))
                continue
            why = f"the host answered {code}" if code else f"no answer ({_words(error)})"
            advice = (
                "check the address"
                if code == 404
                else ("run the same command again later to resume")
            )
            raise SasvError(f"{source}: {why}; {advice}, or use --mirror") from error
        except OSError as error:
            raise SasvError(
                f"{download.parent}: cannot write to this folder ({error.strerror or error}); "
                "check its permissions and the free space"
            ) from error
    raise AssertionError


def _hub(name: str, download: Path, mirror: str) -> str:
    """Download a model from the hub; return its source."""
    try:
        from huggingface_hub import errors, hf_hub_download
    except ImportError as error:
        raise MissingExtra("huggingface_hub", "hub", "the Hugging Face hub") from error
    try:
        path = hf_hub_download(
            name, HUB_FILE, local_dir=download.parent / "hub", endpoint=mirror or None
        )
    except (
        errors.LocalEntryNotFoundError
    ) as error:  # a subclass of EntryNotFoundError that means that the hub did not answer
        raise SasvError(
            f"{name}: the hub does not answer ({_words(error)}); check the network and try again"
        ) from error
    except errors.EntryNotFoundError as error:
        raise SasvError(
            f"{name}: the repository contains no {HUB_FILE}, so it is not a model of sasv; check "
            "the name"
        ) from error
    except errors.HfHubHTTPError as error:
        raise SasvError(
            f"{name}: the hub refused the download ({_words(error)}); check the name and your "
            "access token"
        ) from error
    except OSError as error:
        raise SasvError(
            f"{name}: the download failed ({_words(error)}); run the same command again to resume"
        ) from error
    shutil.move(path, download)
    shutil.rmtree(download.parent / "hub", ignore_errors=True)
    return f"{mirror or 'https://huggingface.co'}/{name}"


QUOTA = (
    "the host's daily quota for this file may be used up, or it requires a login; try again "
    "tomorrow, download the file with a browser and give its path as --model, or use --mirror"
)


def check_whole(path: Path) -> None:
    """Check, without reading all of it, that a file is a complete checkpoint of either format.

    Raises:
        SasvError: the file is a web page, is truncated, or has another format.
    """
    size = path.stat().st_size
    with open(path, "rb") as stream:
        start = stream.read(4096)
        if start.lstrip()[:1] == b"<":
            title = re.search(rb"<title>(.*?)</title>", start, re.DOTALL | re.IGNORECASE)
            said = f" ('{title[1].decode('utf-8', 'replace').strip()}')" if title else ""
            raise SasvError(
                f"{path.name}: the host answered with a web page{said} instead of the file; {QUOTA}"
            )
        if start[:2] == b"PK":
            if zipfile.is_zipfile(path):
                return
        elif start[8:9] == b"{":
            (length,) = struct.unpack("<Q", start[:8])
            with contextlib.suppress(ValueError, AttributeError, KeyError, RecursionError):
                stream.seek(8)
                header = parse_json(stream.read(min(length, size)))
                ends = [
                    value["data_offsets"][1]
                    for key, value in header.items()
                    if key != "__metadata__"
                ]
                if size == 8 + length + max(ends, default=0):
                    return
        elif start[:1] == b"\x80":  # the older format of torch does not contain its length
            return
    raise SasvError(
        f"{path.name}: the {size:,} bytes that were downloaded are not a complete checkpoint; run "
        "the same command again"
    )


@contextlib.contextmanager
def _bar(name: str) -> Any:
    """Yield a function of (bytes received, total bytes) that shows the progress of a transfer."""
    with contextlib.ExitStack() as stack:
        shown: list[Progress] = []

        def update(so_far: int, total: int | None) -> None:
            if not shown:
                progress = Progress(f"download {name}", round((total or 0) / 1e6) or 1, "MB")
                shown.append(stack.enter_context(progress))
            shown[0].add(round(so_far / 1e6) - shown[0].done)

        yield update


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def fetch_all(names: list[str], one: Callable[[str], Path]) -> list[Path]:
    """Download several files, continuing after failures. Raises SasvError at the end, which names
    the files that failed.
    """
    found = []
    failed = []
    for name in names:
        try:
            found.append(one(name))
        except SasvError as error:
            if len(names) == 1:
                raise
            logger.warning(str(error))
            failed.append(name)
    if failed:
        raise SasvError(
            f"{len(failed)} of {len(names)} could not be downloaded: {listed(failed)}; the reasons "
            "are given above"
        )
    return found
