"""Infers the options of ECAPA-TDNN from the shapes of its tensors, by their names in sasv."""

from typing import Any

from sasv.checkpoints.formats.foreign import Shapes, numbered


def ecapa_options(shapes: Shapes, attention: str = "attention.0.weight") -> dict[str, Any]:
    """Read the options that all layouts share. KeyError names an entry that is missing.

    Args:
        shapes: of the entries.
        attention: the first entry of the attention of the pooling.
    """
    return {
        "embedding": shapes["fc6.weight"][0],
        "channels": shapes["conv1.weight"][0],
        "scale": numbered(shapes, r"layer1\.convs\.(\d+)\.") + 1,
        "bottleneck": shapes["layer1.se.se.1.weight"][0],
        "pooled": shapes["layer4.weight"][0],
        "attention": shapes[attention][0],
    }
