"""The environment variables set by a launcher (torchrun, SLURM). This is the only module that reads
them.
"""

import os
from dataclasses import dataclass

from sasv.core.errors import SasvError


@dataclass(frozen=True)
class Launcher:
    """The position of this process among those that a launcher started.

    Attributes:
        rank: number of this process among all, from 0.
        world_size: number of processes.
        local_rank: number of this process on its machine, from 0.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0


def launcher() -> Launcher:
    """Read RANK, WORLD_SIZE, and LOCAL_RANK, as torchrun sets them.

    Without WORLD_SIZE, there is only this process, whatever the value of RANK.

    Raises:
        SasvError: a value is not a whole number, or RANK does not fit WORLD_SIZE.
    """
    world_size = _number("WORLD_SIZE", 1)
    if world_size == 1:
        return Launcher(local_rank=_number("LOCAL_RANK", 0))
    if "RANK" not in os.environ:
        raise SasvError(
            f"WORLD_SIZE is {world_size} but RANK is not set; start the processes with torchrun"
        )
    rank = _number("RANK", 0)
    if not 0 <= rank < world_size:
        raise SasvError(
            f"RANK is {rank}, but WORLD_SIZE is {world_size}; start the processes with torchrun"
        )
    return Launcher(rank, world_size, _number("LOCAL_RANK", 0))


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdigit():
        raise SasvError(
            f"the environment variable {name} is '{text}', which is not a whole number; unset it"
        )
    return int(text)
