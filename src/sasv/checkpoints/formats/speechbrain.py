"""SpeechBrain: ECAPA-TDNN (``embedding_model.ckpt``, ``hyperparams.yaml`` in the same folder)."""

from sasv.checkpoints.checkpoint import Checkpoint
from sasv.checkpoints.formats.base import Contents, WeightFormat
from sasv.checkpoints.formats.ecapa_shapes import ecapa_options
from sasv.checkpoints.formats.foreign import (
    Rules,
    check_settings,
    checkpoint_of,
    missing_entry,
    renamed,
    settings_beside,
)

CONFIG = ("hyperparams.yaml",)
LICENCE = "Apache-2.0"
ENCODER = "ecapa-speechbrain"
DILATIONS = [1, 2, 3, 4, 1]
RULES: Rules = [
    (r"blocks\.0\.conv\.conv\.(.*)", r"conv1.\1"),
    (r"blocks\.0\.norm\.norm\.(.*)", r"bn1.\1"),
    (r"blocks\.([123])\.tdnn1\.conv\.conv\.(.*)", r"layer\1.conv1.\2"),
    (r"blocks\.([123])\.tdnn1\.norm\.norm\.(.*)", r"layer\1.bn1.\2"),
    (r"blocks\.([123])\.res2net_block\.blocks\.(\d+)\.conv\.conv\.(.*)", r"layer\1.convs.\2.\3"),
    (r"blocks\.([123])\.res2net_block\.blocks\.(\d+)\.norm\.norm\.(.*)", r"layer\1.bns.\2.\3"),
    (r"blocks\.([123])\.tdnn2\.conv\.conv\.(.*)", r"layer\1.conv3.\2"),
    (r"blocks\.([123])\.tdnn2\.norm\.norm\.(.*)", r"layer\1.bn3.\2"),
    (r"blocks\.([123])\.se_block\.conv1\.conv\.(.*)", r"layer\1.se.se.1.\2"),
    (r"blocks\.([123])\.se_block\.conv2\.conv\.(.*)", r"layer\1.se.se.3.\2"),
    (r"mfa\.conv\.conv\.(.*)", r"layer4.\1"),
    (r"mfa\.norm\.norm\.(.*)", r"bn4.\1"),
    (r"asp\.tdnn\.conv\.conv\.(.*)", r"attention.0.\1"),
    (r"asp\.tdnn\.norm\.norm\.(.*)", r"attention.2.\1"),
    (r"asp\.conv\.conv\.(.*)", r"attention.4.\1"),
    (r"asp_bn\.norm\.(.*)", r"bn5.\1"),
    (r"fc\.conv\.(.*)", r"fc6.\1"),
]


class SpeechBrainFormat(WeightFormat):
    """Entries of SpeechBrain's ECAPA-TDNN."""

    name = "speechbrain"

    def recognises(self, contents: Contents) -> bool:
        return (
            "asp_bn.norm.weight" in contents.entries
            and "blocks.0.conv.conv.weight" in contents.entries
        )

    def read(self, contents: Contents) -> Checkpoint:
        entries = renamed(contents.entries, RULES, contents.path)
        last = entries.get("fc6.weight")
        if last is not None and last.dim() == 3:
            entries["fc6.weight"] = last.squeeze(
                2
            )  # a convolution of width one is a linear layer here
        shapes = {name: tuple(value.shape) for name, value in entries.items()}
        try:
            options = ecapa_options(shapes)
            mels = shapes["conv1.weight"][1]
        except (KeyError, IndexError) as error:
            raise missing_entry(contents, ENCODER, error) from error
        expected = {
            "n_mels": mels,
            "lin_neurons": options["embedding"],
            "emb_dim": options["embedding"],
            "attention_channels": options["attention"],
            "dilations": DILATIONS,
        }
        check_settings(contents.path, settings_beside(contents.path, CONFIG), expected)
        return checkpoint_of(
            contents, entries, ENCODER, options, "speechbrain", {"mels": mels}, LICENCE
        )
