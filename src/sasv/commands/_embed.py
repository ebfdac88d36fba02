"""sasv embed."""

import logging
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from sasv.audio import AUTO
from sasv.core.errors import SasvError, listed
from sasv.core.options import (
    CropCount,
    CropSeconds,
    NonNegativeFloat,
    Options,
    PositiveFloat,
    PositiveInt,
    Range,
)
from sasv.embeddings.extract import BATCH_SECONDS, Embeddings, extract
from sasv.embeddings.model import load_model
from sasv.parallel.devices import Precision
from sasv.parallel.launchers import asks_for_gpu, check_launched, launch
from sasv.runtime.embedder import Extraction
from sasv.tables import load_utterances
from sasv.weights.catalogue import DEFAULT

logger = logging.getLogger("sasv")


@dataclass
class EmbedOptions(Options):
    """Compute the embedding of every utterance of a table. An interrupted run resumes.

    Args:
        utterances: utterance table.
        out: output folder, for embeddings.npy, index.tsv, and failed.tsv, which lists the files
            that could not be read.
        model: checkpoint; by default the model that comes with sasv.
        where: embed only the rows with this ``column=value``.
        crops: number of crops per utterance (multi-crop scoring); 0 embeds whole utterances.
        crop_seconds: length of a crop, in seconds.
        max_pause: shorten stretches without speech to this many seconds before embedding; by
            default utterances are embedded whole.
        batch_seconds: padded audio per batch, in seconds; 0 takes 30 on a CPU and 600 on a GPU.
        max_seconds: length in seconds above which an utterance is refused.
        channel: channel to use of recordings with several, if the table has no such column:
            mean, loudest, or a number counted from 0; auto takes the mean, or the loudest channel
            if the channels cancel each other.
        shard: part of the work to do, as ``i/n``; by default the rank that torchrun gives.
        device: cpu, cuda, or auto.
        precision: arithmetic of the encoder: float32, or bfloat16, which is up to twice as fast on
            devices with instructions for it and changes most scores by about 0.001.
        launcher: where the work is done: in this process, or as jobs of SLURM or Ray.
        shards: number of parts into which slurm or ray divide the work.
        launcher_options: options of sbatch for each part (--launcher-options.partition NAME), and
            array_parallelism; or address, num_cpus, num_gpus, and memory of Ray.
    """

    utterances: str
    out: str
    model: str = DEFAULT
    where: str = ""
    crops: CropCount = 0
    crop_seconds: CropSeconds = 4.0
    max_pause: Annotated[float | None, Range(0)] = None
    batch_seconds: NonNegativeFloat = 0.0
    max_seconds: PositiveFloat = 300.0
    channel: str = AUTO
    shard: str = ""
    device: str = "auto"
    precision: Precision = "float32"
    launcher: Literal["local", "slurm", "ray"] = "local"
    shards: PositiveInt = 16
    launcher_options: dict[str, str] = field(default_factory=dict)


def embed(options: EmbedOptions) -> Embeddings | None:
    """Embed a table; return the embeddings, or None while other shards still work."""
    if options.launcher == "local":
        result = _extract(options, options.shard)
    else:
        check_launched(options.launcher, options.shard)
        # The size of the batches, of which the parts consist, depends on the device that computes
        # them.
        gpu = options.device.startswith("cuda") or (
            options.device == "auto" and asks_for_gpu(options.launcher_options)
        )
        seconds = options.batch_seconds or BATCH_SECONDS["cuda" if gpu else "cpu"]
        options = replace(options, batch_seconds=seconds)
        launch(
            options.launcher,
            partial(_extract, options, join=False),
            options.shards,
            options.launcher_options,
            Path(options.out) / "jobs",
        )
        result = _extract(replace(options, device="cpu"), "1/1")
    if result is not None:
        rows, dimension = result.vectors.shape
        logger.info(f"{options.out}/embeddings.npy: {rows} x {dimension}, {result.precision}")
        if result.failures:
            raise SasvError(
                f"{len(result.failures)} utterances have no embedding "
                f"({listed(list(result.failures.values()), 3)}); the others are saved; all are in "
                f"{options.out}/failed.tsv"
            )
    return result


def _extract(options: EmbedOptions, shard: str, join: bool = True) -> Embeddings | None:
    extraction = Extraction(
        options.max_seconds, options.crops, options.crop_seconds, options.max_pause, options.channel
    )
    model = load_model(options.model, options.device, extraction, options.precision)
    utterances = load_utterances(options.utterances, options.where)
    return extract(model, utterances, options.out, options.batch_seconds, shard, join=join)
