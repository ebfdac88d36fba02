"""The interface of launchers."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sasv.core.errors import SasvError, reason_of


@dataclass(frozen=True)
class Shards:
    """The shards of a job, as they are sent to other machines. They are pickled by reference, so
    the same version of sasv must be installed there.

    Attributes:
        work: function that does one shard, given as ``i/n``.
        count: number of shards.
        folder: working folder of the process that starts them, to which relative paths refer.
    """

    work: Callable[[str], object]
    count: int
    folder: str = field(default_factory=os.getcwd)

    def __call__(self, number: int) -> str:
        """Do a shard, counted from 0. Return the reason for a failure, or "" after success."""
        try:
            os.chdir(self.folder)
            self.work(f"{number + 1}/{self.count}")
        except (SasvError, OSError) as error:
            return str(error) if isinstance(error, SasvError) else reason_of(error)
        return ""

    def checkpoint(self, number: int) -> Any:
        """Tell submitit what to run when the time of a job is over: the same shard, which continues
        from its results on the disk.
        """
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, number)


class Launcher(ABC):
    """A system that runs shards on other machines."""

    @abstractmethod
    def run(
        self, shards: Shards, settings: Mapping[str, str], logs: Path
    ) -> Iterator[tuple[int, str]]:
        """Run all shards. Yield each when it ends, with the reason if it failed, or "".

        A shard whose machine was lost is run again a few times before it counts as failed.

        Args:
            shards: what to run.
            settings: resources of each shard and other options, under the names of the launcher.
            logs: folder on the shared disk for the files of the launcher.

        Raises:
            SasvError: the launcher is not available, or refuses the settings.
        """


def asks_for_gpu(settings: Mapping[str, str]) -> bool:
    """Whether the settings of a launcher ask for a GPU."""
    return any("gpu" in f"{name}={value}".lower() for name, value in settings.items())
