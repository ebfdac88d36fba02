"""sasv convert."""

import logging
from dataclasses import dataclass
from pathlib import Path

from sasv.checkpoints import load_checkpoint, mixed, save_checkpoint
from sasv.core.options import Options, Probability

logger = logging.getLogger("sasv")


@dataclass
class ConvertOptions(Options):
    """Convert a checkpoint; the formats are told by the file and by the suffix of the result.

    Args:
        source: published .model, or our .safetensors.
        result: .safetensors (ours) or .model (loads in the published code).
        half: store weights in half precision (half the size; they are computed with in single
            precision all the same).
        mix_with: checkpoint that the source was trained from; the encoder's weights are moved back
            towards its weights, and threshold and calibration are left out.
        mix_share: share of the source's own weights in that mixture.
    """

    source: str
    result: str
    half: bool = False
    mix_with: str = ""
    mix_share: Probability = 0.7


def convert(options: ConvertOptions) -> Path:
    """Convert a checkpoint to the format that the suffix of the result names."""
    checkpoint = load_checkpoint(options.source)
    if options.mix_with:
        checkpoint = mixed(checkpoint, load_checkpoint(options.mix_with), options.mix_share)
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
