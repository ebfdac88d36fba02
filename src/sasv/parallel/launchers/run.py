"""Runs a job on other machines."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from sasv.core.errors import SasvError, listed
from sasv.core.progress import Progress
from sasv.core.registry import Registry
from sasv.parallel.launchers.base import Launcher, Shards

logger = logging.getLogger("sasv")

LAUNCHERS = Registry(
    "launcher",
    {
        "slurm": "sasv.parallel.launchers.slurm:Slurm",
        "ray": "sasv.parallel.launchers.ray_tasks:Ray",
    },
)


def launch(
    launcher: str,
    work: Callable[[str], object],
    count: int,
    settings: Mapping[str, str],
    logs: Path,
) -> None:
    """Run the shards of a job with a launcher, and wait for all of them to end.

    Args:
        launcher: slurm or ray.
        work: does one shard, given as ``i/n``; a module-level function, or a ``partial`` of one.
        count: number of shards.
        settings: resources of each shard and other options, under the names of the launcher.
        logs: folder on the shared disk for the files of the launcher.

    Raises:
        SasvError: shards failed. The others are finished, and the results of the failed ones so far
            are kept.
    """
    engine: Launcher = LAUNCHERS.get(launcher)()
    failures: dict[int, str] = {}
    with Progress(f"{launcher} shards", count, unit="shards") as progress:
        for number, reason in engine.run(Shards(work, count), settings, logs):
            if reason:
                failures[number] = reason
                logger.warning(f"shard {number + 1}/{count} failed: {reason}")
            progress.add()
    if failures:
        names = [f"{number + 1}/{count}" for number in sorted(failures)]
        reasons = list(dict.fromkeys(failures.values()))
        raise SasvError(
            f"{len(failures)} of {count} shards failed: {listed(names)} ({listed(reasons, 2)}); "
            "finished work is kept; fix the cause and run the same command again"
        )


def check_launched(launcher: str, shard: str) -> None:
    """Raise SasvError if a shard is given besides a launcher, which divides the job itself."""
    if shard:
        raise SasvError(
            f"--shard {shard} cannot be used with --launcher {launcher}, which divides the job "
            "itself; leave out one of them"
        )
