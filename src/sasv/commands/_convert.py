"""sasv convert."""

from dataclasses import dataclass
from pathlib import Path

from sasv.checkpoints import load_checkpoint, save_checkpoint
from sasv.core.progress import say


@dataclass
class ConvertOptions:
    """Convert a checkpoint; the formats are told by the file and by the suffix of the result.

    Args:
        source: published .model, or our .safetensors.
        result: .safetensors (ours) or .model (loads in the published code).
    """

    source: str
    result: str


def convert(options: ConvertOptions) -> Path:
    """Convert a checkpoint to the format that the suffix of the result names."""
    checkpoint = load_checkpoint(options.source)
    save_checkpoint(options.result, checkpoint)
    spec = checkpoint.specification
    say(f"{options.result}: {spec.encoder}, {len(checkpoint.encoder)} encoder and {len(checkpoint.head)} head entries")
    if Path(options.result).suffix != ".safetensors":
        say("the published format holds weights alone: threshold, classes and licence are not in it")
    return Path(options.result)
