"""Shards as tasks of a Ray cluster (the extra ``sasv[ray]``)."""

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sasv.core.errors import MissingExtra, SasvError, listed, reason_of
from sasv.parallel.launchers.base import Launcher, Shards

RETRIES = 5
"""Number of times that a shard is run again if its machine or process is lost."""

OF_TASKS = ("num_cpus", "num_gpus", "memory")
SETTINGS = ("address", *OF_TASKS)


class Ray(Launcher):
    """Runs shards as tasks of the cluster at ``address``. By default, this is RAY_ADDRESS,
    otherwise a cluster that is running on this machine, otherwise one that is started here.
    """

    def run(
        self, shards: Shards, settings: Mapping[str, str], logs: Path
    ) -> Iterator[tuple[int, str]]:
        """Run all shards. Yield each when it ends, with the reason if it failed, or ""."""
        try:
            import ray
        except ImportError as error:
            raise MissingExtra("ray", "ray", "--launcher ray") from error
        resources = _resources(settings)
        # Otherwise Ray uploads usage statistics.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        started = not ray.is_initialized()
        if started:
            try:
                ray.init(
                    address=settings.get("address"),
                    log_to_driver=False,
                    logging_level=logging.WARNING,
                )
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise SasvError(
                    f"--launcher ray: no cluster can be reached ({reason_of(error)}); start one "
                    "(ray start --head), or check --launcher-options.address"
                ) from error
        try:
            yield from _results(ray, shards, resources)
        finally:
            if started:
                ray.shutdown()


def _resources(settings: Mapping[str, str]) -> dict[str, float]:
    unknown = [name for name in settings if name not in SETTINGS]
    if unknown:
        raise SasvError(
            f"--launcher-options: {listed(unknown)} is not an option for Ray; use "
            f"{listed(SETTINGS)}"
        )
    try:
        return {name: float(settings[name]) for name in OF_TASKS if name in settings}
    except ValueError as error:
        raise SasvError(
            f"--launcher-options: {error}; the resources of Ray must be numbers"
        ) from error


def _results(ray: Any, shards: Shards, resources: Mapping[str, float]) -> Iterator[tuple[int, str]]:
    run = ray.remote(_do).options(max_retries=RETRIES, **resources)
    waiting = {run.remote(shards, number): number for number in range(shards.count)}
    try:
        while waiting:
            done, _ = ray.wait(list(waiting), num_returns=1)
            for task in done:
                number = waiting.pop(task)
                try:
                    yield number, ray.get(task)
                except ray.exceptions.RayError as error:
                    yield number, reason_of(error)
    finally:
        for task in waiting:
            ray.cancel(task, force=True)


def _do(shards: Shards, number: int) -> str:
    return shards(number)
