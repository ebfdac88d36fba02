"""The ``.model`` layout of the published system: a plain state dict in which prefixes mark encoder
and loss head.

The prefixes are those of the released code. The code on which that is based uses the prefixes
``speaker_encoder.`` and ``speaker_loss.`` for the same networks. The released weights state no
licence.
"""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from sasv.checkpoints.checkpoint import Checkpoint
from sasv.checkpoints.containers import torch_bytes
from sasv.checkpoints.formats.base import Contents, WeightFormat
from sasv.checkpoints.formats.ecapa_shapes import ecapa_options
from sasv.checkpoints.formats.foreign import Shapes
from sasv.checkpoints.formats.split import joined, split
from sasv.core.errors import CheckpointError, listed
from sasv.core.files import write_bytes
from sasv.models.specification import Specification

PREFIXES = (("__S__.", "__L__."), ("speaker_encoder.", "speaker_loss."))
MEL_FILTERS = "torchfbank.1.mel_scale.fb"


def family_of(names: Collection[str]) -> str | None:
    """Return the registry name of the encoder that has entries of these names, None if there is
    none.
    """
    if "conformer.after_norm.weight" in names:
        return "mfa-conformer"
    if "frt_conv1.weight" in names:
        return "ska-tdnn"
    return "ecapa-tdnn" if "layer4.weight" in names else None


def ska_options(shapes: Shapes) -> dict[str, Any]:
    """Infer the options of SKA-TDNN from the shapes of its entries."""
    return ecapa_options(shapes) | {"front": shapes["frt_conv1.weight"][0]}


def mfa_options(shapes: Shapes) -> dict[str, Any]:
    """Infer the options of MFA-Conformer from the shapes of its entries."""
    block = "conformer.encoders.0."
    return {
        "embedding": shapes["fc.weight"][0],
        "units": shapes["conformer.embed.conv.0.weight"][0],
        "heads": shapes[block + "self_attn.pos_bias_u"][0],
        "blocks": sum(key.endswith(".self_attn.pos_bias_u") for key in shapes),
        "feedforward": shapes[block + "feed_forward.w_1.weight"][0],
        "kernel": shapes[block + "conv_module.depthwise_conv.weight"][2],
        "attention": shapes["attention.0.weight"][0],
    }


OPTIONS: dict[str, Callable[[Shapes], dict[str, Any]]] = {
    "ecapa-tdnn": ecapa_options,
    "ska-tdnn": ska_options,
    "mfa-conformer": mfa_options,
}


class PublishedFormat(WeightFormat):
    """Entries ``__S__.*`` of the encoder and ``__L__.*`` of the loss head."""

    name = "published"
    suffixes = (".model", ".pt", ".pth")

    def recognises(self, contents: Contents) -> bool:
        return any(name.startswith(encoder) for name in contents.entries for encoder, _ in PREFIXES)

    def read(self, contents: Contents) -> Checkpoint:
        """Infer the encoder from its entries, its options from their shapes, and the loss from the
        entries of the head.
        """
        name = str(contents.path)
        prefixes = next(
            pair for pair in PREFIXES if any(key.startswith(pair[0]) for key in contents.entries)
        )
        encoder, head = split(name, contents.entries, *prefixes)
        shapes = {key: tuple(value.shape) for key, value in encoder.items()}
        family = family_of(shapes)
        if family is None:
            raise CheckpointError(
                f"{name}: the entries ({listed(sorted(encoder), 3)}, ...) do not belong to a known "
                f"encoder ({', '.join(OPTIONS)})"
            )
        try:
            options = OPTIONS[family](shapes)
            mels = shapes[MEL_FILTERS][1]
        except (KeyError, IndexError) as error:
            raise CheckpointError(
                f"{name}: looks like {family}, but entry {error} is missing"
            ) from error
        classes = next(
            (len(value) for key, value in head.items() if key in CLASS_WEIGHTS and value.dim()), 0
        )
        specification = Specification(
            encoder=family,
            encoder_options=options,
            frontend_options={"mels": mels},
            classes=[str(index) for index in range(classes)],
            spoof_index=classes - 1 if classes and "angleproto_sasv.w1" in head else None,
            loss=loss_of(head),
            training={"converted_from": contents.path.name},
        )
        return Checkpoint(specification, encoder, head, name)

    def write(self, path: Path, checkpoint: Checkpoint) -> None:
        """Write only the entries, so that the published code can load the file."""
        specification = checkpoint.specification
        if specification.encoder not in OPTIONS or specification.frontend != "log-mel":
            raise CheckpointError(
                f"{path}: the published format only supports the encoders {', '.join(OPTIONS)} "
                f"with the front-end log-mel, not {specification.encoder} with "
                f"{specification.frontend}; write a .safetensors file instead"
            )
        write_bytes(path, torch_bytes(joined(checkpoint, *PREFIXES[0])))


CLASS_WEIGHTS = ("aamsoftmax.weight", "weight")
"""Names of the entries of a loss head that have a row for each class."""


def loss_of(head: Mapping[str, Tensor]) -> str:
    """Return the registry name of the loss whose head has such entries, "" if there is none."""
    if "angleproto_sasv.w1" in head:
        return "sasv"
    if "aamsoftmax.weight" in head:
        return "aamsoftmaxproto"
    return "aamsoftmax" if "weight" in head else ""
