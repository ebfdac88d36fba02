"""Processes that run ``sasv`` with the arguments of a command line, without importing PyTorch
again.

They are forked from a server that has imported everything and run nothing, because starting Python
and importing the modules for training takes five seconds each time. Tests that depend on real
processes (signals to torchrun, pipes, locales) start them.
"""

import json
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

PRELOADED = [
    "matplotlib.backends.backend_agg",
    "sasv.cli.program",
    "sasv.commands._embed",
    "sasv.commands._evaluate",
    "sasv.commands._synthesize",
    "sasv.commands._train",
    "sasv.training.build",
    "torch._dynamo",
    "torch.distributed.fsdp",
]
FORKS = "forkserver" in multiprocessing.get_all_start_methods()
SERVER = multiprocessing.get_context("forkserver" if FORKS else "spawn")  # Windows cannot fork
if FORKS:
    SERVER.set_forkserver_preload(PRELOADED)


class Forked:
    """A command, run in one process or in several, with the environment variables that torchrun
    sets.

    Args:
        words: of the command line, without ``sasv``.
        folder: folder for the standard output and standard error of the processes.
        count: number of processes.
        before: called first in each process; a module-level function, because it is pickled.
    """

    def __init__(
        self, words: list, folder: Path, count: int = 1, before: Callable[[], object] | None = None
    ):
        folder.mkdir(parents=True, exist_ok=True)
        self.outputs = [folder / f"output-{rank}.txt" for rank in range(count)]
        self.errors = [folder / f"errors-{rank}.txt" for rank in range(count)]
        self.processes = []
        port = _free_port()
        for rank in range(count):
            environment = dict(os.environ)
            if count > 1:
                environment |= {
                    "RANK": str(rank),
                    "LOCAL_RANK": str(rank),
                    "WORLD_SIZE": str(count),
                    "LOCAL_WORLD_SIZE": str(count),
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(port),
                }
            process = SERVER.Process(
                target=_run,
                args=(
                    [str(word) for word in words],
                    environment,
                    str(Path.cwd()),
                    self.outputs[rank],
                    self.errors[rank],
                    before,
                ),
            )
            process.start()
            self.processes.append(process)

    @property
    def running(self) -> bool:
        """Whether all processes are still running."""
        return all(process.exitcode is None for process in self.processes)

    @property
    def output(self) -> str:
        """All standard output."""
        return "".join(path.read_text() for path in self.outputs)

    @property
    def said(self) -> str:
        """All standard error."""
        return "".join(path.read_text() for path in self.errors)

    def send(self, number: int) -> None:
        """Send a signal to every process."""
        for process in self.processes:
            os.kill(process.pid, number)

    def end(self, timeout: float = 300) -> list[int]:
        """Wait for all processes to end; return their exit statuses."""
        for process in self.processes:
            process.join(timeout)
            assert process.exitcode is not None, f"still running after {timeout} s: {self.said}"
        return [process.exitcode for process in self.processes]

    def finish(self) -> str:
        """Wait for all processes to succeed; return all standard error."""
        assert set(self.end()) == {0}, self.said
        return self.said


def written(options, folder: Path) -> Path:
    """Write options of a command as YAML (JSON is YAML); return the path."""
    path = folder / "options.yaml"
    given = {key: value for key, value in vars(options).items() if value != ""}
    path.write_text(json.dumps(given))
    return path


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def _run(
    words: list[str],
    environment: dict[str, str],
    folder: str,
    output: Path,
    errors: Path,
    before: Callable[[], object] | None,
) -> None:
    if FORKS:
        os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, path in ((1, output), (2, errors)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(descriptor, number)
        os.close(descriptor)
    import torch

    from sasv.cli import main

    torch.set_num_threads(1)
    sys.argv = ["sasv", *words]
    if before is not None:
        before()
    sys.exit(main(words))
