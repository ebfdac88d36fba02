"""A PostgreSQL server in a temporary folder, reached through a Unix socket, for one test module."""

import contextlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

DEBIAN = Path("/usr/lib/postgresql")


def binaries(vector: bool = False) -> Path:
    """Return the folder of initdb and postgres; skip the test if there is none.

    Args:
        vector: whether the extension pgvector is required, which Debian 12 does not package, but
            the wheel of pgserver contains.
    """
    found = sorted(DEBIAN.glob("*/bin"), reverse=True)
    on_path = shutil.which("initdb")
    if on_path:
        found.append(Path(os.path.realpath(on_path)).parent)
    wheel = importlib.util.find_spec("pgserver")
    if wheel is not None and wheel.origin is not None:
        found.append(Path(wheel.origin).parent / "pginstall" / "bin")
    for folder in found:
        if (folder / "postgres").exists() and (not vector or _has_vector(folder)):
            return folder
    wanted = "pgvector" if vector else "PostgreSQL"
    pytest.skip(f"needs {wanted}: apt-get install postgresql, or pip install pgserver")


def _has_vector(folder: Path) -> bool:
    shares = [folder.parent / "share" / "postgresql"]
    shares.append(Path("/usr/share/postgresql") / folder.parent.name)
    return any((share / "extension" / "vector.control").exists() for share in shares)


@contextlib.contextmanager
def running(folder: Path) -> Iterator["Server"]:
    """Start a server from the binaries in a folder, and stop it at the end."""
    with tempfile.TemporaryDirectory(prefix="sasv-pg-") as data:
        Path(data).chmod(0o777)
        server = Server(folder, Path(data))
        # Files are not synced to the disk, because the server does not have to survive a crash of
        # the machine.
        options = ["--auth=trust", "--username=sasv", "--encoding=UTF8", "--no-locale", "--no-sync"]
        server.run("initdb", "-D", server.data, "--no-instructions", *options)
        server.start()
        try:
            yield server
        finally:
            server.stop()


class Server:
    """A server that has been set up.

    Attributes:
        address: address of its database.
    """

    def __init__(self, binaries: Path, folder: Path) -> None:
        self.binaries = binaries
        self.data = str(folder / "data")
        self.folder = str(folder)
        self.address = f"postgresql://sasv@/postgres?host={folder}"

    def run(self, program: str, *words: str) -> None:
        """Run one of its programs as a user other than root, which PostgreSQL refuses."""
        command = [str(self.binaries / program), *words]
        if os.geteuid() == 0:
            command = ["runuser", "-u", "postgres", "--", *command]
        subprocess.run(command, check=True, cwd=self.folder, stdout=subprocess.DEVNULL, timeout=60)

    def start(self) -> None:
        """Start the server, and wait until it responds."""
        words = f"-k {self.folder} -c listen_addresses= -c fsync=off"
        log = f"{self.folder}/log"
        self.run("pg_ctl", "-D", self.data, "-w", "-l", log, "-o", words, "start")

    def stop(self) -> None:
        """Stop the server immediately."""
        self.run("pg_ctl", "-D", self.data, "-m", "immediate", "stop")
