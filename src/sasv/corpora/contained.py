"""Recordings that are not separate files: those inside the files of a dataset, and parts of longer
recordings.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sasv.core.progress import Progress
from sasv.storage.locations import MEMBER
from sasv.tables.packing import Recordings, key_of, tar_path, write_tar

FOLDER = "audio"
SHARD_BYTES = 10**9


@dataclass(frozen=True)
class Contained:
    """Recordings that have to be written into tars before a table can refer to them.

    Attributes:
        utterances: names of their utterances.
        read: yields (suffix, bytes) of each, in the same order.
    """

    utterances: Sequence[str]
    read: Callable[[], Iterator[tuple[str, bytes]]]


def write_contained(contained: Contained, out: Path) -> dict[str, str]:
    """Write recordings into tars with indexes, ``out/audio/shard-000000.tar`` and so on.

    Returns:
        Utterance -> the path of its recording, as a table contains it.
    """
    folder = (out / FOLDER).resolve()
    names = contained.utterances
    keys = [key_of(name) for name in names]
    paths: dict[str, str] = {}
    number = 0
    with Progress("recordings", len(names)) as progress:
        left = Recordings(contained.read())
        while left.next is not None:
            tar = tar_path(folder, number)
            _, entries = write_tar(tar, keys[len(paths) :], left, SHARD_BYTES, progress)
            start = f"{tar}{MEMBER.removeprefix('.tar')}"
            for name, entry in zip(names[len(paths) :], entries):
                paths[name] = start + entry.member
            number += 1
    return paths
