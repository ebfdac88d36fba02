"""Options of every command: each number has a range, and a value outside it gives an error in one
line.
"""

import dataclasses
import importlib
import math
import typing
from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest

from sasv.commands import COMMANDS
from sasv.core.errors import SasvError
from sasv.core.options import Options, Range, declared_range, ranges_of, renamed_options, type_words

KINDS = [
    getattr(importlib.import_module(f"sasv.commands.{entry.module}"), entry.options)
    for entry in COMMANDS.values()
]


def numbers(kind):
    """Return the names of the fields of a dataclass that may contain a number."""

    def numeric(hint):
        return hint in (int, float) or any(numeric(part) for part in typing.get_args(hint))

    hints = typing.get_type_hints(kind, include_extras=True)
    return [field.name for field in dataclasses.fields(kind) if numeric(hints[field.name])]


def made(kind, **changes):
    """Return options with an empty value, or the first choice, in every required field."""
    hints = typing.get_type_hints(kind)
    required = {}
    for entry in dataclasses.fields(kind):
        if entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING:
            required[entry.name] = [] if typing.get_origin(hints[entry.name]) is list else ""
            if typing.get_origin(hints[entry.name]) is typing.Literal:
                required[entry.name] = typing.get_args(hints[entry.name])[0]
    return kind(**(required | changes))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_number_of_every_command_declares_its_range(kind):
    hints = typing.get_type_hints(kind, include_extras=True)
    assert [name for name in numbers(kind) if declared_range(hints[name]) is None] == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_defaults_are_in_range_and_what_is_outside_is_refused(kind):
    made(kind)
    hints = typing.get_type_hints(kind)
    ranges = ranges_of(kind)
    for name in numbers(kind):
        wrong = [math.nan, math.inf, -math.inf]
        allowed = ranges[name]
        wrong += [limit - 1 for limit in (allowed.minimum,) if limit is not None]
        wrong += [limit + 1 for limit in (allowed.maximum,) if limit is not None]
        wrong += [limit for limit in (allowed.above, allowed.below) if limit is not None]
        for value in wrong:
            many = {"a": value} if typing.get_origin(hints[name]) is dict else value
            with pytest.raises(SasvError, match=f"--{name.replace('_', '-')} is "):
                made(kind, **{name: many})


@dataclass
class Example(Options):
    """Options of every shape."""

    RENAMED = {"old_share": "share"}

    share: Annotated[float, Range(0, below=1)] = 0.5
    threshold: Annotated[float | None, Range()] = None
    batches: Annotated[int | Literal["all"], Range(1)] = "all"
    costs: Annotated[list[float], Range(above=0)] = dataclasses.field(default_factory=list)
    name: str = "-1"
    switch: bool = True


@dataclass
class Larger(Example):
    """A group and something more."""

    RENAMED = {"length": "seconds"}

    seconds: Annotated[float, Range(1, 10)] = 4.0


def test_ranges_are_described_in_words():
    Example(share=0.0, threshold=-3.5, batches=1, costs=[0.1])
    with pytest.raises(SasvError, match=r"^--share is 1; it must be at least 0 and below 1$"):
        Example(share=1.0)
    with pytest.raises(SasvError, match=r"^--threshold is nan; it must be any finite number$"):
        Example(threshold=math.nan)
    with pytest.raises(SasvError, match=r"^--batches is 0; it must be at least 1$"):
        Example(batches=0)
    with pytest.raises(SasvError, match=r"^--costs is 0; it must be above 0$"):
        Example(costs=[1.0, 0.0])
    with pytest.raises(SasvError, match=r"^--seconds is 11; it must be from 1 to 10$"):
        Larger(seconds=11.0)


@dataclass
class Choices(Options):
    """A choice, an optional choice, and a list of choices."""

    name: Literal["a", "b"] = "a"
    other: Literal["c"] | None = None
    parts: list[Literal["d", "e"]] = field(default_factory=list)


def test_choices_are_checked_however_options_are_made():
    Choices(name="b", other="c", parts=["d", "e"])
    for changes in ({"name": "c"}, {"other": ""}, {"parts": ["d", "x"]}):
        with pytest.raises(SasvError, match=r"^--(name|other|parts) is '[cx]?'; it must be "):
            Choices(**changes)


@dataclass
class Lists(Options):
    """Lists of text and of numbers."""

    by: list[str] = field(default_factory=lambda: ["attack"])
    rows: Annotated[list[int | Literal["all"]], Range(1, 11)] = field(default_factory=list)


def test_a_list_may_be_given_as_one_text():
    assert Lists(by="attack, codec", rows="3,7") == Lists(by=["attack", "codec"], rows=[3, 7])
    assert Lists(by="", rows="all") == Lists(by=[], rows=["all"])
    with pytest.raises(SasvError, match=r"^--rows is 12; it must be from 1 to 11$"):
        Lists(rows="12")


@pytest.mark.parametrize(
    "hint, words",
    [
        (str, "text"),
        (bool, "true or false"),
        (float | None, "a number or null"),
        (Annotated[int, Range(1)], "a whole number, at least 1"),
        (
            Annotated[int | Literal["a", "b"], Range(1)],
            "a whole number, at least 1, or one of a, b",
        ),
        (list[Literal["a", "b"]], "a list, each item one of a, b"),
        (dict[str, str], "a mapping"),
    ],
)
def test_types_are_described_in_words(hint, words):
    assert type_words(hint) == words


def test_groups_bring_their_old_names():
    assert renamed_options(Larger) == {"old_share": "share", "length": "seconds"}
    assert all(
        set(renamed_options(kind).values()) <= {f.name for f in dataclasses.fields(kind)}
        for kind in KINDS
    )
