"""sasv embed."""

import logging
from dataclasses import dataclass
from typing import Annotated

from sasv.audio import AUTO
from sasv.core.errors import SasvError, listed
from sasv.core.options import (
    CropCount,
    CropSeconds,
    NonNegativeFloat,
    Options,
    PositiveFloat,
    Range,
)
from sasv.embeddings.extract import Embeddings, extract
from sasv.embeddings.model import load_model
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


def embed(options: EmbedOptions) -> Embeddings | None:
    """Embed a table; return the embeddings, or None while other shards still work."""
    extraction = Extraction(
        options.max_seconds, options.crops, options.crop_seconds, options.max_pause, options.channel
    )
    model = load_model(options.model, options.device, extraction)
    utterances = load_utterances(options.utterances, options.where)
    result = extract(model, utterances, options.out, options.batch_seconds, options.shard)
    if result is not None:
        logger.info(
            f"{options.out}/embeddings.npy: {result.vectors.shape[0]} x {result.vectors.shape[1]}"
        )
        if result.failures:
            raise SasvError(
                f"{len(result.failures)} utterances have no embedding "
                f"({listed(list(result.failures.values()), 3)}); the others are saved; all are in "
                f"{options.out}/failed.tsv"
            )
    return result
