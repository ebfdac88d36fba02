"""sasv convert."""

import logging
from dataclasses import dataclass
from pathlib import Path

from sasv.checkpoints import load_checkpoint, save_checkpoint
from sasv.core.options import Options

logger = logging.getLogger("sasv")


@dataclass
class ConvertOptions(Options):
    """Convert a checkpoint; the formats are told by the file and by the suffix of the result.

    Args:
        source: published .model, or our .safetensors.
        result: .safetensors (ours) or .model (loads in the published code).
        half: store weights in half precision (half the size; they are computed with in single
            precision all the same).
    """

    source: str
    result: str
    half: bool = False


def convert(options: ConvertOptions) -> Path:
    """Convert a checkpoint to the format that the suffix of the result names."""
    checkpoint = load_checkpoint(options.source)
    if options.half:
        for entries in (checkpoint.encoder, checkpoint.head):
            # matrices and kernels; what normalises, and the fixed front-end, keeps its precision
            large = [
                name
                for name, value in entries.items()
                if value.ndim > 1 and "torchfbank" not in name
            ]
            entries |= {name: entries[name].half() for name in large}
    save_checkpoint(options.result, checkpoint)
    spec = checkpoint.specification
    logger.info(
        f"{options.result}: {spec.encoder}, {len(checkpoint.encoder)} encoder and "
        f"{len(checkpoint.head)} head entries"
    )
    if Path(options.result).suffix != ".safetensors":
        logger.info(
            "the published format holds weights alone: threshold, classes and licence are not in it"
        )
    return Path(options.result)
