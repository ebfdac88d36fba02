"""sasv embed."""

import logging
from dataclasses import dataclass
from typing import Annotated

from sasv.audio import AUTO
from sasv.core.errors import SasvError, some
from sasv.core.options import Count, NonNegativeFloat, Options, PositiveFloat, Range
from sasv.core.outputs import refuse_inside_speech
from sasv.embeddings.extract import Embeddings, extract
from sasv.embeddings.model import Extraction, load_model
from sasv.tables import load_utterances
from sasv.weights.catalogue import DEFAULT

logger = logging.getLogger("sasv")


@dataclass
class EmbedOptions(Options):
    """Embed every utterance of a table.

    Args:
        utterances: utterance table.
        out: folder for embeddings.npy, index.tsv, and failed.tsv where files could not be read.
        model: checkpoint; left out, the model that comes with sasv.
        where: only the rows with this ``column=value``.
        crops: multi-crop: this many crops an utterance; 0 for whole utterances.
        crop_seconds: length of a crop.
        max_pause: cut stretches without speech down to so many seconds first; left out, utterances
            are embedded whole.
        batch_seconds: padded audio per batch; 0 takes 30 on a CPU and 600 on a GPU.
        max_seconds: refuse longer utterances.
        channel: of recordings with several channels, where the table has no such column: mean,
            loudest, or a number from 0 on; auto takes the mean, and the loudest where the channels
            cancel.
        shard: this part of the work, ``i/n``; empty takes torchrun's rank.
        device: cpu, cuda, or auto.
    """

    utterances: str
    out: str
    model: str = DEFAULT
    where: str = ""
    crops: Count = 0
    crop_seconds: PositiveFloat = 4.0
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
    refuse_inside_speech(options.out, utterances.paths)
    result = extract(model, utterances, options.out, options.batch_seconds, options.shard)
    if result is not None:
        logger.info(
            f"{options.out}/embeddings.npy: {result.vectors.shape[0]} x {result.vectors.shape[1]}"
        )
        if result.failures:
            raise SasvError(
                f"{len(result.failures)} utterances have no embedding "
                f"({some(list(result.failures.values()), 3)}); "
                f"the others are saved; all are in {options.out}/failed.tsv"
            )
    return result
