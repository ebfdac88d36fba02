"""Reads and writes checkpoints. Nothing is ever unpickled."""

import os
from dataclasses import replace
from pathlib import Path

import torch

from sasv.checkpoints.checkpoint import Checkpoint
from sasv.checkpoints.containers import read_contents
from sasv.checkpoints.formats import FORMATS
from sasv.checkpoints.formats.base import Contents, WeightFormat
from sasv.checkpoints.limits import TooManyParts, at_most
from sasv.core.errors import CheckpointError, SasvError, listed
from sasv.encoders import make_encoder
from sasv.encoders.base import Encoder
from sasv.weights import resolve


def formats() -> list[WeightFormat]:
    """Return every weight format, in the order in which they are tried."""
    return [FORMATS.get(name)() for name in FORMATS]


def save_checkpoint(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically: ``.safetensors`` in the format of sasv, ``.model`` in the
    published format.

    Raises:
        CheckpointError: the suffix is another one, or the format cannot represent the checkpoint.
    """
    check_weights(checkpoint)
    suffix = Path(path).suffix
    for layout in formats():
        if suffix in layout.suffixes:
            layout.write(Path(path), checkpoint)
            return
    raise CheckpointError(
        f"{path}: the name of a checkpoint must end with .safetensors (format of sasv) or .model "
        "(published format)"
    )


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint of any known format and check every entry of the encoder.

    Args:
        path: a file, a folder that contains one, a name that ``sasv models`` lists, or a hub id
            ``org/name`` (see weights.resolve; nothing is downloaded).

    Raises:
        CheckpointError: the file is missing or truncated, is a pickle that contains code, belongs
            to an unknown model, or has missing or unexpected entries or entries of the wrong shape
            (all
            of them are listed), weights that are not finite or all zero, or a specification with an
            invalid field.
    """
    contents = read_contents(Path(resolve(path)))
    layout = format_of(contents)
    if layout is None:
        raise CheckpointError(f"{contents.path}: {unknown(contents)}")
    checkpoint = replace(layout.read(contents), weight_format=layout.name)
    check_entries(checkpoint)
    check_weights(checkpoint)
    return checkpoint


def format_of(contents: Contents) -> WeightFormat | None:
    """Return the format that recognises the contents of a file, None if there is none."""
    return next((layout for layout in formats() if layout.recognises(contents)), None)


def unknown(contents: Contents) -> str:
    """Explain why no format recognises the contents of a file: an unknown wrapper, or another
    model.
    """
    names = listed(sorted(contents.entries), 5)
    wrapper = next(iter(contents.entries), "").partition(".")[0] + "."
    if all(name.startswith(wrapper) for name in contents.entries):
        inside = {name.removeprefix(wrapper): value for name, value in contents.entries.items()}
        if format_of(replace(contents, entries=inside)) is not None:
            return (
                f"all its entries begin with the unknown prefix {wrapper} ({names}); save the "
                "state dict of the model inside"
            )
    return (
        f"of another model or program: none of the known formats ({', '.join(FORMATS)}) has these "
        f"entries: {names}"
    )


def check_entries(checkpoint: Checkpoint) -> None:
    """Check that a checkpoint has the entries of its encoder.

    Raises:
        CheckpointError: entries are missing, unexpected, or of the wrong shape; all are listed.
    """
    expected = {
        key: tuple(value.shape)
        for key, value in spawn_encoder(checkpoint, fill=False).state_dict().items()
    }
    found = {key: tuple(value.shape) for key, value in checkpoint.encoder.items()}
    missing = [key for key in expected if key not in found]
    unexpected = [key for key in found if key not in expected]
    shapes = [
        f"{key} {found[key]} instead of {expected[key]}"
        for key in expected
        if key in found and found[key] != expected[key]
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "mis-shaped": shapes}
    faults = [f"{kind}: {', '.join(keys)}" for kind, keys in kinds.items() if keys]
    if faults:
        raise CheckpointError(
            f"{checkpoint.name}: its entries do not fit the encoder: {'; '.join(faults)}"
        )


def check_weights(checkpoint: Checkpoint) -> None:
    """Check that the weights are finite and not all zero.

    Raises:
        CheckpointError: they are not; the message names the entries.
    """
    entries = {
        **checkpoint.encoder,
        **{f"head {name}": value for name, value in checkpoint.head.items()},
    }
    floating = {name: value for name, value in entries.items() if value.is_floating_point()}
    broken = [name for name, value in floating.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise CheckpointError(
            f"{checkpoint.name}: there are weights that are not finite in {listed(broken)}; the "
            "training diverged, or the file is damaged"
        )
    matrices = [
        value
        for name, value in checkpoint.encoder.items()
        if value.dim() > 1 and "torchfbank" not in name
    ]
    if matrices and not any(bool(value.any()) for value in matrices):
        raise CheckpointError(f"{checkpoint.name}: all weights are 0; this is not a trained model")


def spawn_encoder(checkpoint: Checkpoint, fill: bool = True) -> Encoder:
    """Make the encoder of a checkpoint.

    Args:
        checkpoint: the checkpoint.
        fill: whether to load the weights; otherwise the encoder is on the meta device.

    Raises:
        CheckpointError: the encoder or front-end is unknown, the options are impossible, the sample
            rate differs from that of the front-end, or the options describe a network with more
            parts than the checkpoint has entries.
    """
    spec = checkpoint.specification
    with torch.device("cpu" if fill else "meta"), at_most(len(checkpoint.encoder)):
        try:
            encoder = make_encoder(
                spec.encoder, spec.encoder_options, spec.frontend, spec.frontend_options
            )
        except (SasvError, TooManyParts) as error:
            raise CheckpointError(f"{checkpoint.name}: {error}") from error
        except (RuntimeError, ValueError, TypeError, ZeroDivisionError, OverflowError) as error:
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(
                f"{checkpoint.name}: cannot build the encoder {spec.encoder} with its options "
                f"{spec.encoder_options} ({reason})"
            ) from error
    if encoder.frontend.sample_rate != spec.sample_rate:
        raise CheckpointError(
            f"{checkpoint.name}: the model is for {spec.sample_rate} Hz, but its front-end "
            f"{spec.frontend} is for {encoder.frontend.sample_rate} Hz"
        )
    spec.min_samples = max(spec.min_samples, encoder.min_samples)
    if fill:
        encoder.load_state_dict(checkpoint.encoder)
    return encoder
