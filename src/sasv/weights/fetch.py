"""Downloads weights from Google Drive, any URL or folder (gdown), or the Hugging Face hub
(huggingface_hub).

Public weights of other toolkits come from where those keep them (see ``elsewhere``).

gdown and huggingface_hub resume and retry; here are the lock, the checks of what came, and the
checksum that is kept.
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
"""What is noted beside fetched weights."""
BUSY = (429, 500, 502, 503, 504)
"""Answers of a host that may answer better in a moment."""


def fetch(
    name: str,
    mirror: str = "",
    renew: bool = False,
    retries: int = RETRIES,
    timeout: float = TIMEOUT,
) -> Path:
    """Fetch weights and return their file; what is here and whole is not fetched again.

    Args:
        name: of ``sasv models``, or a hub id ``org/name``.
        mirror: URL or folder that holds the files of ``sasv models``, in place of Google Drive; of
            a hub id the URL of another hub.
        renew: accept a file that differs from the one that came first.
        retries: of a transfer that breaks off or stalls.
        timeout: seconds without a byte that count as stalled.

    Raises:
        SasvError: unknown name, no network, a web page in place of the file, a broken file, another
            checksum than the kept one, another process that fetches it.
    """
    entry = catalogue().get(name)
    if entry is None and not is_hub_id(name):
        raise CheckpointError(
            f"{name}: no such weights; sasv models lists names; of the hub: org/name"
        )
    if entry is not None and entry.bundled:  # a file of the package is never replaced
        return place_of(name)
    if entry is not None and not entry.drive and not entry.source and not mirror:
        raise CheckpointError(
            f"{name}: the authors never released these weights; train them: sasv reproduce"
        )
    target = place_of(name)
    with locked(target.parent, "another process fetches these weights; wait for it"):
        note = target.with_name(target.name + ".json")
        kept: dict[str, Any] = read_json(note, NOTE) if note.is_file() else {}
        if target.is_file() and not renew:
            if digest_of_file(target) == kept.get("sha256"):
                logger.info(
                    f"{target}: here already, checksum {kept['sha256'][:12]} as first fetched"
                )
                return target
            logger.info(f"{target}: changed since it was downloaded; downloading it again")
        came = target.with_name(f"new-{target.name}")
        if entry is None:
            source = _hub(name, came, mirror)
        elif entry.source and not mirror:
            source = fetch_public(entry, came)
        else:
            source = _file(entry, came, mirror, retries, timeout)
        try:
            check_whole(came)
            digest = digest_of_file(came)
            if kept and kept["sha256"] != digest and not renew:
                raise SasvError(
                    f"{source}: checksum {digest[:12]}, but {kept['sha256'][:12]} came from "
                    f"{kept['source']} on {kept['date']}: another file; --renew accepts it"
                )
        except SasvError:
            came.unlink(missing_ok=True)
            raise
        came.replace(target)
        size = target.stat().st_size
        day = time.strftime("%Y-%m-%d")
        write_json(
            note, {"name": name, "source": source, "sha256": digest, "bytes": size, "date": day}
        )
    logger.info(f"{target}: {size / 1e6:.1f} MB, sha256 {digest}")
    return target


def _file(entry: Entry, came: Path, mirror: str, retries: int, timeout: float) -> str:
    """Bring the file of catalogued weights; return where it came from."""
    if mirror and "://" not in mirror:
        original = Path(mirror) / entry.file
        if not original.is_file():
            raise SasvError(f"{original}: no such file in the mirror; check --mirror")
        with atomic_path(came) as temporary:
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
                    str(came),
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
            parts = list(came.parent.glob(f"{came.name}*.part"))
            if (
                not anew and parts and ("byte range" in str(error) or len(parts) > 1)
            ):  # it cannot be gone on with
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
            advice = "check the address" if code == 404 else "try again later: the transfer resumes"
            raise SasvError(f"{source}: {why}; {advice}, or give a --mirror") from error
        except OSError as error:
            raise SasvError(f"{came.parent}: cannot write: {error.strerror or error}") from error
    raise AssertionError


def _hub(name: str, came: Path, mirror: str) -> str:
    """Bring the model of a hub id; return where it came from."""
    try:
        from huggingface_hub import errors, hf_hub_download
    except ImportError as error:
        raise MissingExtra("huggingface_hub", "hub", "the Hugging Face hub") from error
    try:
        path = hf_hub_download(
            name, HUB_FILE, local_dir=came.parent / "hub", endpoint=mirror or None
        )
    except (
        errors.LocalEntryNotFoundError
    ) as error:  # a kind of EntryNotFoundError, yet it says that no hub answered
        raise SasvError(
            f"{name}: the hub does not answer ({_words(error)}); check the network, try again"
        ) from error
    except errors.EntryNotFoundError as error:
        raise SasvError(f"{name}: has no {HUB_FILE}, so it is not a model of sasv") from error
    except errors.HfHubHTTPError as error:
        raise SasvError(
            f"{name}: the hub did not give it ({_words(error)}); check the name, or your token"
        ) from error
    except OSError as error:
        raise SasvError(
            f"{name}: cannot fetch ({_words(error)}); run the same command again to resume"
        ) from error
    shutil.move(path, came)
    shutil.rmtree(came.parent / "hub", ignore_errors=True)
    return f"{mirror or 'https://huggingface.co'}/{name}"


QUOTA = (
    "the host's daily quota for this file is used up, or it wants a login: try again tomorrow, "
    "fetch the file in a browser and give its path as --model, or give a --mirror"
)


def check_whole(path: Path) -> None:
    """Check, without reading all of it, that a file is a whole checkpoint of either format.

    Raises:
        SasvError: a web page, or a file that is cut short or of another kind.
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
        elif start[:1] == b"\x80":  # the older torch format, which has no length in it
            return
    raise SasvError(
        f"{path.name}: {size:,} bytes came that are no whole checkpoint; run the same command again"
    )


@contextlib.contextmanager
def _bar(name: str) -> Any:
    """Yield a function (bytes so far, bytes in all) that shows the progress of a transfer."""
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
    """Fetch several, the good ones whatever becomes of the others; SasvError at the end names
    those.
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
            f"{len(failed)} of {len(names)} could not be fetched: {listed(failed)}; the reasons "
            "are above"
        )
    return found
