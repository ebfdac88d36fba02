"""Reads YAML files of options safely: no Python objects, no aliases (which could expand without
bound), and limited nesting.
"""

import json
import os
import re
from typing import Any

from sasv.core.errors import SasvError

MOST_BYTES = 1_000_000
DEEPEST = 20
"""Limits far above what any file of options needs."""

NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)")


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """Return the content of a YAML or JSON file, None if the file is empty.

    Raises:
        SasvError: the file is missing, not UTF-8, not YAML, larger than MOST_BYTES, or nested
            deeper than DEEPEST.
    """
    from sasv.core.files import read_bytes

    data = read_bytes(path, MOST_BYTES)
    try:
        return parse_yaml(data.decode("utf-8-sig"), os.fspath(path))
    except UnicodeDecodeError as error:
        raise SasvError(
            f"{path}: not a UTF-8 text file ({error.reason} at byte {error.start})"
        ) from error


def parse_yaml(text: str, where: str, texts: bool = False) -> Any:
    """Parse YAML.

    Args:
        text: YAML or JSON, which is a subset of YAML.
        where: file or option, for messages.
        texts: return every scalar as text, even ``no`` and ``1``.

    Raises:
        SasvError: the text is not YAML, uses aliases, or is nested deeper than DEEPEST.
    """
    import yaml

    found = _json(text, where)
    if found is not None and not (texts and any(not isinstance(item, str) for item in found)):
        return found
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise SasvError(
                    f"{where}: uses a YAML alias (*{event.anchor}); write the value out"
                )
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if depth > DEEPEST:
                raise SasvError(f"{where}: nested deeper than {DEEPEST} levels")
        loader = yaml.BaseLoader if texts else _loader()
        _check_keys(yaml.compose(text, Loader=loader), where)
        return yaml.load(text, Loader=loader)
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise SasvError(f"{where}: not valid YAML ({reason})") from error


def _check_keys(node: Any, where: str) -> None:
    """Raise SasvError if a mapping has a key twice, of which YAML would use the last silently."""
    if not isinstance(getattr(node, "value", None), list):
        return
    seen: set[str] = set()
    for entry in node.value:
        if not isinstance(entry, tuple):
            _check_keys(entry, where)
            continue
        key, value = entry
        name = str(key.value)
        if name in seen:
            line = key.start_mark.line + 1
            raise SasvError(f"{where}, line {line}: {name} is given twice; keep one of them")
        seen.add(name)
        _check_keys(value, where)


def _unique(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    """Return a JSON object. Raise SasvError if it has a key twice."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise SasvError(f"{where}: {name} is given twice; keep one of them")
        found[name] = value
    return found


def _json(text: str, where: str) -> Any:
    """Return a JSON list or object, None if the text is not one. JSON is tried first, because its
    strings may contain characters that YAML does not allow.
    """
    if text.lstrip()[:1] not in ("[", "{"):
        return None
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: _unique(pairs, where))
    except (ValueError, RecursionError):
        return None


def _loader() -> Any:
    """Return a safe loader that reads 1e-8 as a number and 2026-01-01 as text, as JSON and Python
    do.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers = {
            start: [entry for entry in entries if entry[0] != "tag:yaml.org,2002:timestamp"]
            for start, entries in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(f"^(?:{NUMBER.pattern})$"), list("-+.0123456789")
    )
    return Loader
