"""What every launcher is given, and what it gives back."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sasv.core.errors import SasvError, reason_of


@dataclass(frozen=True)
class Shards:
    """The shards of a job, as they are sent to other machines: pickled by reference, so that
    sasv must be installed there in the same version.

    Attributes:
        work: does one shard, named ``i/n``.
        count: number of shards.
        folder: current folder of whoever starts them, which relative paths refer to.
    """

    work: Callable[[str], object]
    count: int
    folder: str = field(default_factory=os.getcwd)

    def __call__(self, number: int) -> str:
        """Do a shard, counted from 0; return why it failed, "" where it did not."""
        try:
            os.chdir(self.folder)
            self.work(f"{number + 1}/{self.count}")
        except (SasvError, OSError) as error:
            return str(error) if isinstance(error, SasvError) else reason_of(error)
        return ""

    def checkpoint(self, number: int) -> Any:
        """Say to submitit what to run where a job's time is over: the same shard, which goes on
        with what it has left on the disk.
        """
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, number)


class Launcher(ABC):
    """An engine that runs shards."""

    @abstractmethod
    def run(
        self, shards: Shards, settings: Mapping[str, str], logs: Path
    ) -> Iterator[tuple[int, str]]:
        """Run all shards; yield each as it ends, with the reason where it failed.

        A shard whose machine was lost is run again a few times before it counts as failed.

        Args:
            shards: what to run.
            settings: what to ask of the engine for each shard, by the engine's names.
            logs: folder on the shared disk for what the engine keeps.

        Raises:
            SasvError: the engine is not there, or refuses the settings.
        """


def asks_for_gpu(settings: Mapping[str, str]) -> bool:
    """Whether the settings of a launcher ask for a GPU."""
    return any("gpu" in f"{name}={value}".lower() for name, value in settings.items())
