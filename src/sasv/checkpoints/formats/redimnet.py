"""ReDimNet, as released by its authors: a file with ``model_config`` and ``state_dict``.

The sizes are inferred from the shapes. What shapes do not show (activation, hop, normalisation of
the waveform) is read from ``model_config``.
"""

from collections.abc import Mapping
from typing import Any

from sasv.checkpoints.checkpoint import Checkpoint
from sasv.checkpoints.formats.base import Contents, WeightFormat
from sasv.checkpoints.formats.foreign import (
    Shapes,
    check_settings,
    checkpoint_of,
    missing_entry,
    numbered,
    without,
)
from sasv.core.errors import CheckpointError, listed

ENCODER = "redimnet"
LICENCE = "MIT"
NOT_OURS = ("spec.", "cls_head.")
"""Prefixes of entries that are not needed: tensors of the front-end, which can be computed from its
options, and the loss head.
"""
MEL_FILTERS = "spec.torchfbank.2.mel_scale.fb"
UNSUPPORTED = {
    "tf_optimized_arch": (None, False),
    "feat_type": (None, "pt", "pt_mel"),
    "pooling_func": (None, "ASTP"),
}
"""Settings -> the only values that are supported, those of the released network."""
UNSUPPORTED_SPECTRUM = {"do_preemph": (None, True), "spec_norm": (None, "mn"), "n_fft": (None, 512)}


def network_options(shapes: Shapes) -> dict[str, Any]:
    """Infer the options of the network from the shapes of its entries.

    Raises:
        KeyError: an entry is missing.
    """
    channels = shapes["backbone.stem.0.weight"][0]
    features = shapes["backbone.fin_wght1d.w"][2]
    stages = [
        _stage(shapes, f"backbone.stage{index}.", features) for index in range(_stages(shapes))
    ]
    width = shapes["pool.linear1.weight"][1]
    pooled = shapes["linear.weight"][1] // 2
    options: dict[str, Any] = {
        "embedding": shapes["linear.weight"][0],
        "channels": channels,
        "output_channels": pooled if "backbone.mfa.0.weight" in shapes else None,
        "context": width == 3 * pooled,
        "embedding_norm": "bn2.weight" in shapes,
    }
    current = channels
    expansions = []
    for stage in stages:
        current *= stage["stride"]
        expansions.append(stage["inside"] / current)
    options["strides"] = [stage["stride"] for stage in stages]
    options["blocks"] = [stage["blocks"] for stage in stages]
    options["expansions"] = expansions
    options["reductions"] = [stage["reduction"] for stage in stages]
    options |= _kinds(shapes)
    return options


def _stages(shapes: Shapes) -> int:
    return numbered(shapes, r"backbone\.stage(\d+)\.")


def _stage(shapes: Shapes, prefix: str, features: int) -> dict[str, Any]:
    inside, _, stride, _ = shapes[prefix + "2.weight"]
    narrowed = next(
        (shape[0] for name, shape in shapes.items() if _is_narrowing(name, prefix)), None
    )
    reduction = None
    if narrowed is not None:
        reduction = next(
            number for number in range(1, features + 1) if features // number <= narrowed
        )
    blocks = numbered(shapes, rf"{prefix.replace('.', chr(92) + '.')}(\d+)\.conv_block\.")
    return {"inside": inside, "stride": stride, "blocks": blocks, "reduction": reduction}


def _is_narrowing(name: str, prefix: str) -> bool:
    return name.startswith(prefix) and name.endswith("red_dim_conv.0.weight")


def _kinds(shapes: Shapes) -> dict[str, Any]:
    """Infer the types of the blocks and the width of the groups from the entries that exist."""
    block_2d = "convnext_like"
    wide = next(
        (shape for name, shape in shapes.items() if name.endswith("conv_block.dwconvs.0.weight")),
        None,
    )
    if wide is None:
        excites = any(".conv_block.se." in name for name in shapes)
        block_2d = "basic_resnet_fwse" if excites else "basic_resnet"
        wide = next(
            (shape for name, shape in shapes.items() if name.endswith("conv_block.conv1.weight")),
            None,
        )
    if wide is None:
        raise KeyError("conv_block.dwconvs.0.weight")
    block_1d = "fc"
    if any(".tcm.4.attention." in name for name in shapes):
        block_1d = "conv+att"
    elif any(".tcm.1.attention." in name for name in shapes):
        block_1d = "att"
    elif any(".tcm.0.dwconvs." in name for name in shapes):
        block_1d = "conv"
    grouped = block_2d == "convnext_like" or any(
        name.endswith("conv_block.conv1pw.weight") for name in shapes
    )
    group_width = wide[1] if grouped and wide[1] != wide[0] else None
    return {"block_1d": block_1d, "block_2d": block_2d, "group_width": group_width}


class RedimnetFormat(WeightFormat):
    """Entries of ReDimNet."""

    name = "redimnet"

    def recognises(self, contents: Contents) -> bool:
        return (
            "backbone.stem.0.weight" in contents.entries
            and "backbone.fin_wght1d.w" in contents.entries
        )

    def read(self, contents: Contents) -> Checkpoint:
        shapes = contents.shapes
        try:
            options = network_options(shapes)
            mels = shapes[MEL_FILTERS][1] if MEL_FILTERS in shapes else 72
        except (KeyError, IndexError, ValueError, StopIteration) as error:
            raise missing_entry(contents, ENCODER, error) from error
        config = contents.extras.get("model_config", {})
        if not isinstance(config, Mapping):
            raise CheckpointError(
                f"{contents.path}: model_config must map names to values; download the file again"
            )
        frontend = _check_config(contents, config, options, mels)
        entries = without(contents.entries, NOT_OURS)
        return checkpoint_of(contents, entries, ENCODER, options, "log-mel", frontend, LICENCE)


def _check_config(
    contents: Contents, config: Mapping[str, Any], options: dict[str, Any], mels: int
) -> dict[str, Any]:
    """Check the configuration, complete the options from it, and return the options of the
    front-end.
    """
    spectrum = config.get("spec_params") or {}
    wrong = [
        f"{name} {config[name]}"
        for name, known in UNSUPPORTED.items()
        if config.get(name) not in known
    ]
    wrong += [
        f"{name} {spectrum[name]}"
        for name, known in UNSUPPORTED_SPECTRUM.items()
        if spectrum.get(name) not in known
    ]
    if wrong:
        raise CheckpointError(
            f"{contents.path}: settings in model_config that are not supported: {listed(wrong)}"
        )
    expected = {
        "F": mels,
        "C": options["channels"],
        "embed_dim": options["embedding"],
        "block_1d_type": options["block_1d"],
        "group_divisor": options["group_width"],
        "out_channels": options["output_channels"],
        "global_context_att": options["context"],
        "emb_bn": options["embedding_norm"],
    }
    kind = config.get("block_2d_type", options["block_2d"])
    if kind == "convnext_like_relu" and options["block_2d"] == "convnext_like":
        options["block_2d"] = kind
    expected["block_2d_type"] = options["block_2d"]
    check_settings(contents.path, config, expected)
    frontend: dict[str, Any] = {"mels": mels}
    if config.get("hop_length", 160) != 160:
        frontend["hop"] = config["hop_length"]
    if spectrum.get("norm_signal"):
        frontend["normalise"] = True
    return frontend
