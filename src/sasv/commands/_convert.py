"""sasv convert."""

import logging
from dataclasses import dataclass
from pathlib import Path

from sasv.checkpoints import large, load_checkpoint, mixed, quantised, save_checkpoint
from sasv.core.errors import SasvError
from sasv.core.options import Options, Probability

logger = logging.getLogger("sasv")


@dataclass
class ConvertOptions(Options):
    """Convert a checkpoint. The format of the source is recognised; the suffix of the result
    chooses its format.

    Args:
        source: checkpoint of sasv (.safetensors), or in a published format (.model and others).
        result: output file: .safetensors for sasv, .model for the published code.
        half: store the weights in half precision, which halves the size; computations remain in
            single precision.
        int8: store the weights as 8-bit integers with a scale for each output channel, which makes
            a .safetensors file a quarter of the size; computations remain in single precision.
        mix_with: checkpoint that the source was trained from; the weights of the encoder are moved
            back towards its weights, and threshold and calibration are left out.
        mix_share: share of the source's own weights in the mixture.
    """

    source: str
    result: str
    half: bool = False
    int8: bool = False
    mix_with: str = ""
    mix_share: Probability = 0.7


def convert(options: ConvertOptions) -> Path:
    """Convert a checkpoint to the format that is given by the suffix of the result."""
    if options.half and options.int8:
        raise SasvError("half and int8 are two precisions; choose one of them")
    if options.int8 and Path(options.result).suffix != ".safetensors":
        raise SasvError(
            f"{options.result}: 8-bit weights can only be stored in a .safetensors file"
        )
    checkpoint = load_checkpoint(options.source)
    if options.mix_with:
        checkpoint = mixed(checkpoint, load_checkpoint(options.mix_with), options.mix_share)
    if options.half:
        for entries in (checkpoint.encoder, checkpoint.head):
            entries |= {name: entries[name].half() for name in large(entries)}
    if options.int8:
        checkpoint.encoder = quantised(checkpoint.encoder)
        checkpoint.head = quantised(checkpoint.head)
    save_checkpoint(options.result, checkpoint)
    spec = checkpoint.specification
    logger.info(
        f"{options.result}: {spec.encoder}, {len(checkpoint.encoder)} encoder and "
        f"{len(checkpoint.head)} head entries"
    )
    if Path(options.result).suffix != ".safetensors":
        logger.info(
            "the published format contains only weights: "
            "threshold, classes and licence are not in it"
        )
    return Path(options.result)
