"""AASIST and AASIST-L, as released by their authors (``AASIST.pth``, with a ``.conf`` file of the
same name).
"""

from typing import Any

from sasv.checkpoints.checkpoint import Checkpoint
from sasv.checkpoints.formats.base import Contents, WeightFormat
from sasv.checkpoints.formats.foreign import (
    check_settings,
    checkpoint_of,
    missing_entry,
    settings_beside,
)
from sasv.encoders import preset

ENCODER = "aasist"
LICENCE = "MIT"
RELEASED = {(32, 64): "published", (32, 24): "light"}
"""Channels of the released models -> the preset with the settings that shapes do not show."""


class AasistFormat(WeightFormat):
    """Entries of AASIST."""

    name = "aasist"

    def recognises(self, contents: Contents) -> bool:
        return "GAT_layer_S.att_weight" in contents.entries and "pos_S" in contents.entries

    def read(self, contents: Contents) -> Checkpoint:
        shapes = contents.shapes
        try:
            channels = (shapes["encoder.0.0.conv1.weight"][0], shapes["GAT_layer_S.att_weight"][0])
            units = shapes["HtrgGAT_layer_ST11.att_weight11"][0]
        except (KeyError, IndexError) as error:
            raise missing_entry(contents, ENCODER, error) from error
        options: dict[str, Any] = preset(ENCODER, RELEASED.get(channels, "published"))
        options |= {"channels": channels, "graph_units": units, "embedding": 5 * units}
        names = [f"{contents.path.stem}{suffix}" for suffix in (".conf", ".json")]
        settings = settings_beside(contents.path, names).get("model_config", {})
        check_settings(contents.path, settings, {"gat_dims": [channels[1], units]})
        if "pool_ratios" in settings:
            options["ratios"] = settings["pool_ratios"][:3]
        if "temperatures" in settings:
            options["temperatures"] = settings["temperatures"][:3]
        if "nb_samp" in settings:
            options["samples"] = settings["nb_samp"]
        return checkpoint_of(contents, contents.entries, ENCODER, options, "waveform", {}, LICENCE)
