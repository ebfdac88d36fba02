"""sasv pack."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sasv.core.options import Count, Options
from sasv.tables import load_utterances
from sasv.tables.packing import Packed, bytes_of
from sasv.tables.packing import pack as pack_table

logger = logging.getLogger("sasv")


@dataclass
class PackOptions(Options):
    """Pack the recordings of a table into tars with indexes, for slow disks and object storage.

    Args:
        table: utterance table.
        out: output folder, for shard-000000.tar and on, their indexes, and utterances.tsv, which
            points into them. The folder can be moved or uploaded as a whole.
        shard_size: largest size of a tar, for instance 500MB.
        audio: keep the files as they are, or write FLAC where that keeps their samples to the bit.
        where: pack only the rows with this ``column=value``.
        num_workers: number of threads that read.
        verify: read every tar again at the end and compare its checksum.
    """

    table: str
    out: str
    shard_size: str = "1GB"
    audio: Literal["as-is", "flac"] = "as-is"
    where: str = ""
    num_workers: Count = 4
    verify: bool = False


def pack(options: PackOptions) -> Packed:
    """Pack a table; what is finished already is kept.

    Raises:
        SasvError: a recording cannot be read, or the folder holds another pack.
    """
    size = bytes_of(options.shard_size)
    utterances = load_utterances(options.table, options.where)
    packed = pack_table(
        utterances, Path(options.out), size, options.audio, options.num_workers, options.verify
    )
    members = sum(shard.members for shard in packed.shards)
    total = sum(shard.size for shard in packed.shards)
    logger.info(
        f"{packed.table}: {members:,} recordings in {len(packed.shards):,} tars, {total:,} bytes"
    )
    return packed
