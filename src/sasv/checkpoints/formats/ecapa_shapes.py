"""Infers the options of ECAPA-TDNN from the shapes of its tensors, which have their names in
sasv.
"""

from typing import Any

from sasv.checkpoints.formats.foreign import Shapes, numbered


def ecapa_options(shapes: Shapes, attention: str = "attention.0.weight") -> dict[str, Any]:
    """Infer the options that all layouts share.

    Args:
        shapes: name -> shape of the entries.
        attention: name of the first entry of the attention in the pooling.

    Raises:
        KeyError: an entry is missing.
    """
    return {
        "embedding": shapes["fc6.weight"][0],
        "channels": shapes["conv1.weight"][0],
        "scale": numbered(shapes, r"layer1\.convs\.(\d+)\.") + 1,
        "bottleneck": shapes["layer1.se.se.1.weight"][0],
        "pooled": shapes["layer4.weight"][0],
        "attention": shapes[attention][0],
    }
