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
    """Run the shards of a job with a launcher, and wait for all of them.

    Args:
        launcher: slurm or ray.
        work: does one shard, named ``i/n``: a function of a module, or a ``partial`` of one.
        count: number of shards.
        settings: what to ask of the engine for each shard, by the engine's names.
        logs: folder on the shared disk for what the engine keeps.

    Raises:
        SasvError: shards failed; the others are finished, and what the failed ones did is kept.
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
            "what was done is kept: mend this and run the same command again"
        )


def check_launched(launcher: str, shard: str) -> None:
    """SasvError where a job is given to a launcher, which divides it itself, and a shard is named
    as well.
    """
    if shard:
        raise SasvError(
            f"--shard {shard} is for job arrays of your own; leave it out with "
            f"--launcher {launcher}"
        )
