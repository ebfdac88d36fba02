"""Engines that run the shards of a job on other machines: SLURM through submitit, and Ray.

A shard leaves files and marks on a disk that all machines share. An engine starts shards and says
which of them failed; what a lost machine had finished is found by whoever does its shard again.
"""

from sasv.parallel.launchers.base import Launcher, Shards, asks_for_gpu
from sasv.parallel.launchers.run import LAUNCHERS, check_launched, launch

__all__ = ["LAUNCHERS", "Launcher", "Shards", "asks_for_gpu", "check_launched", "launch"]
