"""Launchers that run the shards of a job on other machines: SLURM through submitit, and Ray.

A shard writes its results, and records of what is finished, to a disk that all machines share. A
launcher starts shards and reports which of them failed. If a machine is lost, its shard is run
again and continues after the work that was finished.
"""

from sasv.parallel.launchers.base import Launcher, Shards, asks_for_gpu
from sasv.parallel.launchers.run import LAUNCHERS, check_launched, launch

__all__ = ["LAUNCHERS", "Launcher", "Shards", "asks_for_gpu", "check_launched", "launch"]
