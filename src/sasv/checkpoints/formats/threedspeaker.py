"""3D-Speaker: CAM++ and ERes2NetV2 (``.bin``, ``.ckpt``, ``.pt``, with ``configuration.json`` of
ModelScope in the same folder).

The front-end is Kaldi's with a Povey window, on samples in [-1, 1].
"""

from typing import Any

from sasv.checkpoints.checkpoint import Checkpoint
from sasv.checkpoints.formats import campplus_shapes
from sasv.checkpoints.formats.base import Contents, WeightFormat
from sasv.checkpoints.formats.foreign import (
    Shapes,
    check_settings,
    checkpoint_of,
    missing_entry,
    numbered,
    settings_beside,
)

CONFIG = ("configuration.json",)
LICENCE = "Apache-2.0"
ERES2NET_MARK = "layer3_ds.weight"
"""Name of an entry that ERes2NetV2 has and a ResNet does not have."""


def eres2net_options(shapes: Shapes) -> dict[str, Any]:
    """Infer the options of ERes2NetV2 from the shapes of its entries.

    Raises:
        KeyError: an entry is missing.
    """
    channels = shapes["conv1.weight"][0]
    # The width of each stage is rounded down, so that the widest stage gives the best estimate.
    widths = (
        -(-shapes[f"layer{stage + 1}.0.convs.0.weight"][0] * 64 // (channels * 2**stage))
        for stage in range(4)
    )
    return {
        "embedding": shapes["seg_1.weight"][0],
        "channels": channels,
        "base_width": max(widths),
        "scale": numbered(shapes, r"layer1\.0\.convs\.(\d+)\."),
        "expansion": shapes["layer1.0.conv3.weight"][0] // channels,
        "blocks": [numbered(shapes, rf"layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4)],
    }


def eres2net_mels(shapes: Shapes) -> int:
    """Infer the number of mel bands, a multiple of eight."""
    return 8 * (shapes["seg_1.weight"][1] // (2 * shapes[ERES2NET_MARK][0]))


class ThreeDSpeakerFormat(WeightFormat):
    """Entries of 3D-Speaker's models."""

    name = "3dspeaker"

    def recognises(self, contents: Contents) -> bool:
        return campplus_shapes.MARK in contents.entries or ERES2NET_MARK in contents.entries

    def read(self, contents: Contents) -> Checkpoint:
        shapes = contents.shapes
        family = "campplus" if campplus_shapes.MARK in shapes else "eres2netv2"
        try:
            if family == "campplus":
                options = campplus_shapes.campplus_options(shapes)
                mels = campplus_shapes.campplus_mels(shapes)
            else:
                options = eres2net_options(shapes)
                mels = eres2net_mels(shapes)
        except (KeyError, IndexError, ValueError) as error:
            raise missing_entry(contents, family, error) from error
        expected = {
            "emb_size": options["embedding"],
            "embedding_size": options["embedding"],
            "fbank_dim": mels,
        }
        check_settings(contents.path, settings_beside(contents.path, CONFIG), expected)
        return checkpoint_of(
            contents, contents.entries, family, options, "kaldi", {"mels": mels}, LICENCE
        )
