"""Infers the options of CAM++ from the shapes of its tensors, for WeSpeaker and 3D-Speaker."""

from typing import Any

from sasv.checkpoints.formats.foreign import Shapes, numbered

MARK = "xvector.block1.tdnnd1.cam_layer.linear_local.weight"
"""Name of an entry that only CAM++ has."""


def campplus_options(shapes: Shapes) -> dict[str, Any]:
    """Infer the options of the encoder.

    Raises:
        KeyError: an entry is missing.
    """
    growth, bottleneck, _ = shapes[MARK]
    return {
        "embedding": shapes["xvector.dense.linear.weight"][0],
        "channels": shapes["head.conv1.weight"][0],
        "initial": shapes["xvector.tdnn.linear.weight"][0],
        "growth": growth,
        "bottleneck": bottleneck,
        "layers": [
            numbered(shapes, rf"xvector\.block{block}\.tdnnd(\d+)\.") for block in (1, 2, 3)
        ],
    }


def campplus_mels(shapes: Shapes) -> int:
    """Infer the number of mel bands, a multiple of eight."""
    return 8 * (shapes["xvector.tdnn.linear.weight"][1] // shapes["head.conv1.weight"][0])
