"""WeSpeaker: ``avg_model.pt`` with ``config.yaml`` in the same folder, and ``pytorch_model.bin``
from hubs (prefix ``resnet.``).

It reads CAM++, ResNet, SimAM-ResNet and ECAPA-TDNN. The front-end is Kaldi's with a Hamming window,
on 16-bit integers. CAM++ has the same state-dict keys as that of 3D-Speaker; a ``config.yaml`` in
the same folder indicates WeSpeaker.
"""

from collections.abc import Callable
from typing import Any

from sasv.checkpoints.checkpoint import Checkpoint
from sasv.checkpoints.formats import campplus_shapes, ecapa_shapes
from sasv.checkpoints.formats.base import Contents, WeightFormat
from sasv.checkpoints.formats.foreign import (
    Entries,
    Rules,
    Shapes,
    check_settings,
    checkpoint_of,
    missing_entry,
    numbered,
    renamed,
    settings_beside,
    without,
)
from sasv.core.errors import CheckpointError
from sasv.encoders.resnet import DEPTHS

CONFIG = ("config.yaml",)
FRONTEND = {"window": "hamming", "scale": 32768.0}
HUB_PREFIX = "resnet."
TRAINING_HEAD = ("projection.",)
"""Prefix of the entries of the loss head, which is useful only for the training speakers."""

SIMAM_RULES: Rules = [
    (r"front\.(.*)\.downsample\.(.*)", r"\1.shortcut.\2"),
    (r"front\.(.*)", r"\1"),
    (r"(pooling\..*)", r"\1"),
    (r"bottleneck\.(.*)", r"seg_1.\1"),
]
ECAPA_RULES: Rules = [
    (r"layer1\.conv\.(.*)", r"conv1.\1"),
    (r"layer1\.bn\.(.*)", r"bn1.\1"),
    *(
        rule
        for block in (1, 2, 3)
        for rule in (
            (rf"layer{block + 1}\.se_res2block\.0\.(conv|bn)\.(.*)", rf"layer{block}.\g<1>1.\2"),
            (rf"layer{block + 1}\.se_res2block\.1\.(.*)", rf"layer{block}.\1"),
            (rf"layer{block + 1}\.se_res2block\.2\.(conv|bn)\.(.*)", rf"layer{block}.\g<1>3.\2"),
            (rf"layer{block + 1}\.se_res2block\.3\.linear1\.(.*)", rf"layer{block}.se.se.1.\1"),
            (rf"layer{block + 1}\.se_res2block\.3\.linear2\.(.*)", rf"layer{block}.se.se.3.\1"),
        )
    ),
    (r"conv\.(.*)", r"layer4.\1"),
    (r"pool\.(.*)", r"pooling.\1"),
    (r"bn\.(.*)", r"bn5.\1"),
    (r"linear\.(.*)", r"fc6.\1"),
    (r"bn2\.(.*)", r"bn6.\1"),
]


def family_of(names: Entries) -> str | None:
    """Return the registry name of the encoder that has such entries, None if there is none."""
    if campplus_shapes.MARK in names:
        return "campplus"
    if "layer2.se_res2block.0.conv.weight" in names:
        return "ecapa-wespeaker"
    is_resnet = "layer4.0.conv1.weight" in names and "layer3_ds.weight" not in names
    is_resnet = is_resnet and "layer1.0.convs.0.weight" not in names and "seg_1.weight" in names
    if is_resnet or "front.layer4.0.conv1.weight" in names:
        return "resnet"
    return None


def resnet_options(shapes: Shapes) -> dict[str, Any]:
    """Infer the options of a residual network from the shapes of its entries.

    Raises:
        KeyError: an entry is missing.
    """
    kind = "bottleneck" if "layer1.0.conv3.weight" in shapes else "basic"
    counts = tuple(numbered(shapes, rf"layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4))
    depth = next((depth for depth, layout in DEPTHS.items() if layout == (kind, counts)), 0)
    attentive = "pooling.attention.0.weight" in shapes
    options = {
        "embedding": shapes["seg_1.weight"][0],
        "depth": depth,
        "channels": shapes["conv1.weight"][0],
        "pooling": "attentive" if attentive else "statistics",
    }
    if attentive:
        options["attention"] = shapes["pooling.attention.0.weight"][0]
    return options


def resnet_mels(shapes: Shapes) -> int:
    """Infer the number of mel bands, a multiple of eight."""
    last = max(
        (name for name in shapes if name.startswith("layer4.0.conv")),
        default="layer4.0.conv2.weight",
    )
    return 8 * (shapes["seg_1.weight"][1] // (2 * shapes[last][0]))


def ecapa_options(shapes: Shapes) -> dict[str, Any]:
    """Infer the options of ECAPA-TDNN from the shapes of its entries.

    Raises:
        KeyError: an entry is missing.
    """
    options = ecapa_shapes.ecapa_options(shapes, "pooling.linear1.weight")
    return options | {
        "context": shapes["pooling.linear1.weight"][1] == 3 * options["pooled"],
        "embedding_norm": "bn6.weight" in shapes,
    }


def ecapa_mels(shapes: Shapes) -> int:
    """Infer the number of mel bands."""
    return shapes["conv1.weight"][1]


READERS: dict[str, tuple[Callable[[Shapes], dict[str, Any]], Callable[[Shapes], int]]] = {
    "campplus": (campplus_shapes.campplus_options, campplus_shapes.campplus_mels),
    "resnet": (resnet_options, resnet_mels),
    "ecapa-wespeaker": (ecapa_options, ecapa_mels),
}


class WespeakerFormat(WeightFormat):
    """Entries of WeSpeaker's models."""

    name = "wespeaker"

    def recognises(self, contents: Contents) -> bool:
        family = family_of(_plain(contents.entries))
        if family == "campplus":
            return any((contents.path.parent / name).is_file() for name in CONFIG)
        return family is not None

    def read(self, contents: Contents) -> Checkpoint:
        entries = _plain(contents.entries)
        family = family_of(entries)
        assert family is not None
        simam = "front.layer4.0.conv1.weight" in entries
        if simam:
            entries = renamed(entries, SIMAM_RULES, contents.path)
        if family == "ecapa-wespeaker":
            entries = renamed(entries, ECAPA_RULES, contents.path)
            entries = {name: _as_convolution(name, value) for name, value in entries.items()}
        shapes = {name: tuple(value.shape) for name, value in entries.items()}
        read_options, read_mels = READERS[family]
        try:
            options = read_options(shapes)
            mels = read_mels(shapes)
        except (KeyError, IndexError, ValueError) as error:
            raise missing_entry(contents, family, error) from error
        if family == "campplus":
            options["variance_epsilon"] = 1e-7
        if family == "resnet":
            options["simam"] = simam
            if not options["depth"]:
                depths = ", ".join(map(str, DEPTHS))
                raise CheckpointError(
                    f"{contents.path}: the depth of this residual network is none of {depths}"
                )
        settings = settings_beside(contents.path, CONFIG)
        expected = {
            "embed_dim": options["embedding"],
            "feat_dim": mels,
            "num_mel_bins": mels,
            "two_emb_layer": False,
        }
        check_settings(contents.path, settings, expected)
        _check_model(contents, settings, family, options)
        return checkpoint_of(
            contents, entries, family, options, "kaldi", {**FRONTEND, "mels": mels}
        )


def _plain(entries: Entries) -> Entries:
    entries = without(entries, TRAINING_HEAD)
    if entries and all(name.startswith(HUB_PREFIX) for name in entries):
        return {name.removeprefix(HUB_PREFIX): value for name, value in entries.items()}
    return entries


def _as_convolution(name: str, value: Any) -> Any:
    """Convert the weights of a linear layer of squeeze-excitation to those of a convolution of
    width one.
    """
    return (
        value[..., None]
        if ".se.se." in name and name.endswith(".weight") and value.dim() == 2
        else value
    )


MODELS = {
    "CAMPPlus": "campplus",
    "ResNet": "resnet",
    "SimAM_ResNet": "resnet",
    "ECAPA": "ecapa-wespeaker",
}
"""Beginning of the model name in a configuration -> encoder."""


def _check_model(
    contents: Contents, settings: dict[str, Any], family: str, options: dict[str, Any]
) -> None:
    named = settings.get("model")
    if not isinstance(named, str):
        return
    expected = next((encoder for start, encoder in MODELS.items() if named.startswith(start)), None)
    digits = "".join(filter(str.isdigit, named.split("_")[0] if named.startswith("ResNet") else ""))
    depth = int(digits) if digits else options.get("depth")
    if expected != family or depth != options.get("depth"):
        raise CheckpointError(
            f"{contents.path}: its settings file contradicts it: model {named}, but the "
            f"weights are of {family}"
            + (f" of depth {options['depth']}" if "depth" in options else "")
        )
