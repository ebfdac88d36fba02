"""sasv export-table."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sasv.core.errors import SasvError
from sasv.core.options import Count, Options
from sasv.corpora.write_huggingface import write_huggingface
from sasv.corpora.write_lhotse import write_lhotse
from sasv.tables import load_utterances
from sasv.tables.packing import bytes_of

logger = logging.getLogger("sasv")


@dataclass
class ExportTableOptions(Options):
    """Write a table in the format of another toolkit.

    Args:
        table: utterance table.
        out: output folder.
        format: lhotse writes manifests that refer to the recordings (recordings, supervisions, and
            cuts); huggingface writes Parquet files that contain the recordings.
        where: write only the rows with this ``column=value``.
        shard_size: size of a Parquet file, for instance 500MB.
        audio: copy recordings into Parquet files unchanged, or convert them to FLAC if that
            preserves their samples exactly.
        num_workers: number of threads that read recordings for Parquet files.
    """

    table: str
    out: str
    format: Literal["lhotse", "huggingface"] = "lhotse"
    where: str = ""
    shard_size: str = "500MB"
    audio: Literal["as-is", "flac"] = "as-is"
    num_workers: Count = 4


def export_table(options: ExportTableOptions) -> Path:
    """Write a table for another toolkit; return the manifest of the cuts, or the folder of data."""
    size = bytes_of(options.shard_size)
    utterances = load_utterances(options.table, options.where)
    if not len(utterances):
        raise SasvError(f"{options.table}: no rows to write; check --where")
    out = Path(options.out)
    if options.format == "lhotse":
        written = write_lhotse(utterances, out)
    else:
        written = write_huggingface(utterances, out, size, options.audio, options.num_workers)
    logger.info(f"{written}: {len(utterances):,} utterances")
    return written
