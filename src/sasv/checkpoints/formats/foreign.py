"""Functions for the formats of other toolkits: renaming of state-dict keys, settings files, and the
specification.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from sasv.checkpoints.checkpoint import Checkpoint
from sasv.checkpoints.formats.base import Contents
from sasv.core.errors import CheckpointError, SasvError, listed
from sasv.core.files import read_bytes, read_json
from sasv.core.yaml_files import MOST_BYTES
from sasv.encoders import make_encoder
from sasv.models.specification import Specification

SAMPLE_RATE = 16000

MOST_SETTINGS = 10_000
"""Maximum number of settings in a file, far above that of any model."""

Entries = dict[str, Tensor]
Rules = Sequence[tuple[str, str]]
Shapes = Mapping[str, tuple[int, ...]]


def renamed(entries: Entries, rules: Rules, path: Path) -> Entries:
    """Rename entries by the first rule whose pattern matches the whole name.

    Args:
        entries: name -> tensor.
        rules: pairs of a regular expression and a replacement (see ``re.Match.expand``).
        path: the file, for messages.

    Raises:
        CheckpointError: no rule matches some entries; the message lists them all.
    """
    patterns = [(re.compile(pattern), replacement) for pattern, replacement in rules]
    found: Entries = {}
    strangers = []
    for name, value in entries.items():
        matches = ((pattern.fullmatch(name), replacement) for pattern, replacement in patterns)
        match, replacement = next(((match, new) for match, new in matches if match), (None, ""))
        if match is None:
            strangers.append(name)
        else:
            found[match.expand(replacement)] = value
    if strangers:
        raise CheckpointError(
            f"{path}: this format has no entries {', '.join(sorted(strangers))}; check that the "
            "file belongs to this model"
        )
    return found


def without(entries: Entries, prefixes: tuple[str, ...]) -> Entries:
    """Return the entries whose names do not begin with any of the prefixes."""
    return {name: value for name, value in entries.items() if not name.startswith(prefixes)}


def numbered(shapes: Shapes, pattern: str) -> int:
    """Return how many different numbers the first group of a pattern matches in the names that
    begin with the pattern.
    """
    matches = (re.match(pattern, name) for name in shapes)
    return len({match[1] for match in matches if match})


def checkpoint_of(
    contents: Contents,
    entries: Entries,
    encoder: str,
    options: Mapping[str, Any],
    frontend: str,
    frontend_options: Mapping[str, Any],
    licence: str = "unknown",
) -> Checkpoint:
    """Make a checkpoint without a head.

    Raises:
        CheckpointError: the options are impossible.
    """
    try:
        with torch.device("meta"):
            made = make_encoder(encoder, options, frontend, frontend_options)
    except SasvError as error:
        raise CheckpointError(f"{contents.path}: looks like {encoder}, but {error}") from error
    specification = Specification(
        **made.description(), licence=licence, training={"converted_from": contents.path.name}
    )
    return Checkpoint(specification, entries, {}, str(contents.path))


def missing_entry(contents: Contents, encoder: str, error: Exception) -> CheckpointError:
    """Return the error for an entry that is needed to infer a size, but is missing or has another
    shape.
    """
    return CheckpointError(
        f"{contents.path}: looks like {encoder}, but entry {error} is missing or has another shape"
    )


class _PlainLoader(yaml.SafeLoader):
    """Reads YAML with application-specific tags, such as SpeechBrain's ``!new:``, and ignores the
    tags.
    """


def _untagged(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return node.value


_PlainLoader.add_multi_constructor("!", _untagged)


def settings_beside(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """Return the settings in the first of the files ``names`` that exists in the folder of
    ``path``; an empty mapping if none does.
    """
    file = next((path.parent / name for name in names if (path.parent / name).is_file()), None)
    if file is None:
        return {}
    remedy = "download it again or remove it"
    try:
        if file.suffix in (".json", ".conf"):
            return dict(read_json(file, remedy=remedy))
        found = yaml.load(read_bytes(file, MOST_BYTES).decode("utf-8-sig"), _PlainLoader)
        many = isinstance(found, dict) and any(
            number >= MOST_SETTINGS for number, _ in enumerate(flattened(found))
        )
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        reason = (str(error).splitlines() or ["nested too deeply"])[0]
        raise CheckpointError(f"{file}: cannot be read ({reason}); {remedy}") from error
    except SasvError as error:
        raise CheckpointError(str(error)) from error
    if many:  # aliases within aliases
        raise CheckpointError(f"{file}: more than {MOST_SETTINGS:,} settings; {remedy}")
    if not isinstance(found, dict):
        raise CheckpointError(f"{file}: must be a mapping of names and values; {remedy}")
    return found


def flattened(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the name and value of every scalar in nested settings."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flattened(value)
        else:
            yield str(name), value


def check_settings(path: Path, settings: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Check that settings agree with the weights.

    Args:
        path: the weight file, for messages.
        settings: nested names and values.
        expected: name -> the value that a setting must have, if it exists.

    Raises:
        CheckpointError: a setting contradicts the weights, or the sample rate is not supported.
    """
    faults = []
    for name, value in flattened(settings):
        if name in ("sample_rate", "resample_rate") and value != SAMPLE_RATE:
            raise CheckpointError(
                f"{path}: its settings say {name} {value}; only models for {SAMPLE_RATE} Hz can be "
                "used"
            )
        if name in expected and isinstance(value, type(expected[name])) and value != expected[name]:
            faults.append(f"{name} {value}, but the weights say {expected[name]}")
    if faults:
        raise CheckpointError(f"{path}: its settings file contradicts it: {listed(faults)}")
