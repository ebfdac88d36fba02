"""sasv pack."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from sasv.core.options import Count, Options, PositiveInt
from sasv.parallel.launchers import launch
from sasv.tables import load_utterances
from sasv.tables.packing import Packed, bytes_of
from sasv.tables.packing import pack as pack_table
from sasv.tables.packing_shards import pack_in_shards

logger = logging.getLogger("sasv")


@dataclass
class PackOptions(Options):
    """Pack the recordings of a table into tars with indexes, for slow disks and object storage.

    Args:
        table: utterance table.
        out: output folder, for shard-000000.tar and so on, their indexes, and utterances.tsv, which
            points into them. The folder can be moved or uploaded as a whole.
        shard_size: maximum size of a tar, for instance 500MB.
        audio: copy the files unchanged, or convert them to FLAC if that preserves their samples
            exactly.
        where: pack only the rows with this ``column=value``.
        num_workers: number of threads that read.
        launcher: where the work is done: in this process, or as jobs of SLURM or Ray.
        shards: number of parts into which slurm or ray divide the work.
        launcher_options: options of sbatch for each part (--launcher-options.partition NAME), and
            array_parallelism; or address, num_cpus, num_gpus, and memory of Ray.
        verify: read every tar again at the end and compare its checksum.
    """

    table: str
    out: str
    shard_size: str = "1GB"
    audio: Literal["as-is", "flac"] = "as-is"
    where: str = ""
    num_workers: Count = 4
    launcher: Literal["local", "slurm", "ray"] = "local"
    shards: PositiveInt = 16
    launcher_options: dict[str, str] = field(default_factory=dict)
    verify: bool = False


def pack(options: PackOptions) -> Packed:
    """Pack a table. Shards that are already finished are kept.

    Raises:
        SasvError: a recording cannot be read, or the folder contains a different pack.
    """
    size = bytes_of(options.shard_size)
    utterances = load_utterances(options.table, options.where)
    out = Path(options.out)
    if options.launcher == "local":
        packed = pack_table(
            utterances, out, size, options.audio, options.num_workers, options.verify
        )
    else:
        packed = pack_in_shards(
            partial(_launch, options),
            options.shards,
            utterances,
            out,
            size,
            options.audio,
            options.num_workers,
            options.verify,
        )
    members = sum(shard.members for shard in packed.shards)
    total = sum(shard.size for shard in packed.shards)
    logger.info(
        f"{packed.table}: {members:,} recordings in {len(packed.shards):,} tars, {total:,} bytes"
    )
    return packed


def _launch(options: PackOptions, work: Callable[..., None]) -> None:
    launch(
        options.launcher,
        partial(_do_shard, options, work),
        options.shards,
        options.launcher_options,
        Path(options.out) / "jobs",
    )


def _do_shard(options: PackOptions, work: Callable[..., None], shard: str) -> None:
    """Write one shard, on a machine of a cluster."""
    utterances = load_utterances(options.table, options.where)
    size = bytes_of(options.shard_size)
    work(utterances, Path(options.out), size, options.audio, options.num_workers, shard)
