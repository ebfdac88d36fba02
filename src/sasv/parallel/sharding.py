"""The part of a long job that this process works on, given by the rank from torchrun, or by
``--shard i/n`` in a job array.
"""

from collections.abc import Callable

from sasv.core.errors import SasvError
from sasv.parallel.environment import launcher


def parse_shard(text: str = "") -> tuple[int, int]:
    """Return (index from 0, count). ``text`` is ``i/n``, with i from 1. If it is empty, RANK and
    WORLD_SIZE are used, or (0, 1) if they are not set.
    """
    if not text:
        started = launcher()
        return started.rank, started.world_size
    index, slash, count = text.partition("/")
    if not (slash and index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count)):
        raise SasvError(f"shard '{text}': write it as i/n with i from 1 to n, for instance 2/8")
    return int(index) - 1, int(count)


def outstanding(
    total: int, index: int, count: int, done: Callable[[int], bool]
) -> tuple[list[int], list[int]]:
    """Return the units of work (numbers below ``total``) of one shard, and those among them that
    are not done.
    """
    mine = list(range(index, total, count))
    return mine, [number for number in mine if not done(number)]
