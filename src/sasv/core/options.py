"""Options of commands. Every numeric field declares its range, and one function checks them all.

``epochs: Annotated[int, Range(1)] = 100`` is a whole number of at least 1. A number without limits
declares an empty ``Range()``; it must still be finite. ``tests/core/test_options.py`` finds numbers
without a declared range.
"""

import json
import math
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Annotated, Any, ClassVar

from sasv.core.errors import SasvError


@dataclass(frozen=True, repr=False)
class Range:
    """The allowed range of a number, also of the elements of a list and of the values of a
    dictionary.

    Attributes:
        minimum: the smallest allowed number.
        maximum: the largest allowed number.
        above: exclusive lower limit.
        below: exclusive upper limit.
    """

    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None

    def __contains__(self, value: float) -> bool:
        """Whether a number is finite and within the range."""
        return (
            math.isfinite(value)
            and (self.minimum is None or value >= self.minimum)
            and (self.maximum is None or value <= self.maximum)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        """Describe the range in words, for messages and help pages."""
        if self.minimum is not None and self.maximum is not None:
            return f"from {self.minimum} to {self.maximum}"
        limits = {
            "at least": self.minimum,
            "above": self.above,
            "at most": self.maximum,
            "below": self.below,
        }
        words = [f"{words} {limit}" for words, limit in limits.items() if limit is not None]
        return " and ".join(words) or "any finite number"

    def __repr__(self) -> str:
        return f"<{self}>"


Seed = Annotated[int, Range(0, 2**63 - 1)]
"""The seed of a random number generator."""

Count = Annotated[int, Range(0)]
"""A count that may be zero."""

PositiveInt = Annotated[int, Range(1)]
"""A count of at least one."""

PositiveFloat = Annotated[float, Range(above=0)]
"""A number greater than zero."""

BootstrapCount = Annotated[int, Range(0, 1_000_000)]
"""A number of bootstrap samples; 0 computes no intervals."""

CropCount = Annotated[int, Range(0, 100)]
"""A number of crops per utterance; 0 takes whole utterances."""

CropSeconds = Annotated[float, Range(maximum=600, above=0)]
"""The length of a crop in seconds."""

NonNegativeFloat = Annotated[float, Range(0)]
"""A number greater than or equal to zero."""

Probability = Annotated[float, Range(0, 1)]
"""A probability."""


class Options:
    """Base class of the dataclasses of command options. On construction, numbers and choices are
    checked, and a list that is given as one string (``by="attack,codec"``) is split.

    A subclass with further checks extends ``__post_init__`` and calls ``super().__post_init__()``.
    """

    RENAMED: ClassVar[dict[str, str]] = {}
    """Old name -> current name of an option. Old names are accepted for one version, with a
    notice.
    """

    def __post_init__(self) -> None:
        _split_lists(self)
        check_ranges(self)
        check_choices(self)


def check_ranges(options: Any) -> None:
    """Check every number of a dataclass of options against the range that its field declares.

    Raises:
        SasvError: a number is not finite or out of range; the message names the flag and the range.
    """
    for name, allowed in ranges_of(type(options)).items():
        for value in _numbers(getattr(options, name)):
            if value not in allowed:
                raise SasvError(f"--{name.replace('_', '-')} is {value:g}; it must be {allowed}")


def check_choices(options: Any) -> None:
    """Check every option whose type is a choice (``Literal``) or a list of choices.

    Raises:
        SasvError: a value is not one of the choices; the message names the flag and the choices.
    """
    hints = typing.get_type_hints(type(options))
    for entry in fields(options):
        hint = plain(hints[entry.name])
        given = getattr(options, entry.name)
        if kind_of(hint) is list:
            hint = typing.get_args(hint)[0]
        else:
            given = [given]
        if typing.get_origin(hint) is not typing.Literal:
            continue
        for value in given:
            if value is not None and value not in typing.get_args(hint):
                flag = entry.name.replace("_", "-")
                raise SasvError(f"--{flag} is {value!r}; it must be {type_words(hint)}")


def ranges_of(kind: type) -> dict[str, Range]:
    """Return the range of every field of a dataclass. A field that declares none gets ``Range()``,
    any finite number.
    """
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: declared_range(hints[field.name]) or Range() for field in fields(kind)}


def declared_range(hint: Any) -> Range | None:
    """Return the range that a type hint declares, None if it declares none."""
    for entry in getattr(hint, "__metadata__", ()):
        if isinstance(entry, Range):
            return entry
    found = (declared_range(part) for part in typing.get_args(hint))
    return next((entry for entry in found if entry is not None), None)


def renamed_options(kind: type) -> dict[str, str]:
    """Return old name -> current name for the options of a class and of its base classes."""
    names: dict[str, str] = {}
    for part in reversed(kind.__mro__):
        names |= vars(part).get("RENAMED", {})
    return names


def current_names(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return recorded option values with old option names replaced by the current ones."""
    renamed = renamed_options(kind)
    return {renamed.get(name, name): value for name, value in values.items()}


def kind_of(hint: Any) -> Any:
    """Return list or dict for the types of lists and mappings, otherwise the type itself."""
    return typing.get_origin(plain(hint)) or plain(hint)


def plain(hint: Any) -> Any:
    """Return a type without ``| None``."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        parts = [part for part in typing.get_args(hint) if part is not type(None)]
        return parts[0] if len(parts) == 1 else hint
    return hint


def type_words(hint: Any) -> str:
    """Describe in words which values a type allows: ``a whole number, at least 1``."""
    if typing.get_origin(hint) is Annotated:
        inner = typing.get_args(hint)[0]
        allowed = declared_range(hint)
        words = type_words(inner)
        if allowed is None or allowed == Range():
            return words
        number, union, others = words.partition(" or ")
        return f"{number}, {allowed}{',' if union else ''}{union}{others}"
    kind = kind_of(hint)
    if kind in (typing.Union, types.UnionType):
        return " or ".join(type_words(part) for part in typing.get_args(hint))
    if kind is typing.Literal:
        values = list(map(str, typing.get_args(hint)))
        return values[0] if len(values) == 1 else f"one of {', '.join(values)}"
    if kind is list:
        return f"a list, each item {type_words(typing.get_args(plain(hint))[0])}"
    names = {bool: "true or false", int: "a whole number", float: "a number", dict: "a mapping"}
    found = names.get(kind, "text")
    return f"{found} or null" if plain(hint) is not hint else found


def split_items(text: str) -> list[str]:
    """Split a comma-separated list (``a,b``) into its items."""
    parts = [part.strip() for part in text.split(",")]
    return [part for part in parts if part]


def values_of(options: Any) -> dict[str, Any]:
    """Return name -> value of a dataclass of options, with values as in JSON."""
    return json.loads(json.dumps(asdict(options)))


def defaults_of(kind: type) -> dict[str, Any]:
    """Return name -> default of the dataclass fields that have one, with values as in JSON."""
    found: dict[str, Any] = {}
    for field in fields(kind):
        if field.default is not MISSING:
            found[field.name] = field.default
        elif field.default_factory is not MISSING:
            found[field.name] = field.default_factory()
    return json.loads(json.dumps(found))


def _split_lists(options: Any) -> None:
    hints = typing.get_type_hints(type(options))
    for field in fields(options):
        value = getattr(options, field.name)
        hint = hints[field.name]
        if kind_of(hint) is not list or not isinstance(value, str):
            continue
        items: list[Any] = split_items(value)
        if typing.get_args(plain(hint)) != (str,):
            items = [int(item) if item.isdigit() else item for item in items]
        setattr(options, field.name, items)


def _numbers(value: Any) -> Iterator[float]:
    """Yield the numbers contained in the value of an option."""
    if isinstance(value, bool | str) or value is None:
        return
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, dict):
        yield from _numbers(value.values())
    elif isinstance(value, Iterable):
        for element in value:
            yield from _numbers(element)
