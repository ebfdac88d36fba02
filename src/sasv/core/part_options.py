"""Builds the options of registered parts (encoders, front-ends) from JSON values, and checks types
and ranges.

The options are a frozen dataclass. Annotations may be ``int``, ``float``, ``bool``, ``str``,
``Literal``, a union with None, ``tuple[X, ...]``, ``list[X]`` or ``dict[str, Any]``. Numbers may
declare a ``Range``; a whole number without one must be between 1 and a million, which is more than
any size in a network.
"""

import dataclasses
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from sasv.core.errors import SasvError
from sasv.core.options import Range, declared_range

WHOLE = Range(1, 1_000_000)

T = TypeVar("T")


def parse_options(kind: type[T], values: Mapping[str, Any], owner: str) -> T:
    """Make options from JSON values.

    Args:
        kind: the dataclass of the options.
        values: option name -> value; omitted options keep their defaults.
        owner: the part to which the options belong, for the message.

    Raises:
        SasvError: an option is unknown, or its value has another type or is out of range; the
            message names the option.
    """
    assert dataclasses.is_dataclass(kind)
    if not isinstance(values, Mapping):
        raise SasvError(
            f"options of {owner} must be a mapping from names to values, not {_shown(values)}"
        )
    known = {field.name: field for field in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind, include_extras=True)
    parsed = {}
    for name, value in values.items():
        if name not in known:
            raise SasvError(
                f"unknown option '{name}' of {owner}; its options are: {', '.join(known) or 'none'}"
            )
        parsed[name] = checked(value, hints[name], f"option {name} of {owner}")
    return kind(**parsed)


def checked(value: Any, hint: Any, place: str, limits: Range | None = None) -> Any:
    """Convert a JSON value to the type of an annotation.

    Args:
        value: the JSON value.
        hint: the annotation.
        place: the option, for the message.
        limits: range of a number; None takes the one that the annotation declares.

    Raises:
        SasvError: the value does not match the annotation.
    """
    if typing.get_origin(hint) is typing.Annotated:
        return checked(value, typing.get_args(hint)[0], place, declared_range(hint))
    origin = typing.get_origin(hint)
    inner = typing.get_args(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        return parse_options(typing.cast("type[Any]", hint), value, place)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in inner:
            return None
        (rest,) = [part for part in inner if part is not type(None)]
        return checked(value, rest, place, limits)
    if origin is Literal:
        if not isinstance(value, str | int | bool) or value not in inner:
            choices = ", ".join(map(str, inner))
            raise SasvError(f"{place} must be one of {choices}, not {_shown(value)}")
        return value
    if origin in (list, tuple):
        if not isinstance(value, list | tuple):
            raise SasvError(f"{place} must be a list, not {_shown(value)}")
        return origin(checked(part, inner[0], f"each of {place}", limits) for part in value)
    if origin is dict or hint is dict:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise SasvError(f"{place} must be a mapping, not {_shown(value)}")
        return dict(value)
    return _scalar(value, hint, place, limits)


def _scalar(value: Any, hint: Any, place: str, limits: Range | None) -> Any:
    if hint is bool or hint is str:
        if not isinstance(value, hint):
            wanted = "true or false" if hint is bool else "text"
            raise SasvError(f"{place} must be {wanted}, not {_shown(value)}")
        return value
    assert hint in (int, float), f"{place}: options cannot have the type {hint}"
    whole = hint is int
    limits = limits or (WHOLE if whole else Range())
    number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not number or abs(value) > sys.float_info.max or value not in limits:
        raise SasvError(
            f"{place} must be a {'whole ' if whole else ''}number, {limits}, not {_shown(value)}"
        )
    return hint(value)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
