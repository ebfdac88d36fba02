"""Arguments of the command line: one rule for each kind of option, old names, and the conversion of
options back to arguments.
"""

import dataclasses
import types
import typing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sasv import cli
from sasv.cli.parser import options_of
from sasv.commands import COMMANDS
from sasv.core.errors import SasvError
from sasv.core.words import Words, words_of

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@dataclasses.dataclass
class Options:
    """Options of every kind.

    Args:
        files: a.
        rate: a.
        count: a.
        title: a.
        plot: a.
        names: a.
        weights: a.
        sizes: a.
        limit: a.
        kind: a.
        batches: a.
    """

    files: list[str]
    rate: float = 0.5
    count: int = 3
    title: str = "x"
    plot: bool = True
    names: list[str] = dataclasses.field(default_factory=lambda: ["a"])
    weights: dict[str, str] = dataclasses.field(default_factory=dict)
    sizes: dict[str, int] = dataclasses.field(default_factory=dict)
    limit: float | None = 1.0
    kind: typing.Literal["mean", "no"] = "mean"
    batches: int | typing.Literal["paper"] = "paper"
    RENAMED: typing.ClassVar[dict[str, str]] = {"highest": "rate", "most": "count"}


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    from sasv.commands import Command

    module = types.ModuleType("sasv.commands._toy")
    module.ToyOptions = Options
    monkeypatch.setitem(__import__("sys").modules, "sasv.commands._toy", module)
    monkeypatch.setitem(COMMANDS, "toy", Command("_toy", "ToyOptions", "a toy", ("files",)))


def values(hint):
    """A strategy for values of a type."""
    if hint is str:
        return TEXT
    if hint is bool:
        return st.booleans()
    if hint is int:
        return st.integers(-(10**9), 10**9)
    if hint is float:
        return st.floats(allow_nan=False, allow_infinity=False)
    if hint is type(None):
        return st.none()
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return st.sampled_from(parts)
    if origin is list:
        return st.lists(values(parts[0]), max_size=3)
    if origin is dict:
        return st.dictionaries(TEXT, values(parts[1]), max_size=3)
    return st.one_of([values(part) for part in parts])


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.data())
def test_command_line_round_trips_to_the_same_options(data):
    hints = typing.get_type_hints(Options)
    drawn = {
        field.name: data.draw(values(hints[field.name]), field.name)
        for field in dataclasses.fields(Options)
    }
    drawn["files"] = drawn["files"] or ["x"]
    options = Options(**drawn)
    assert cli.parse("toy", words_of(options, ("files",))) == options


@pytest.mark.parametrize(
    "words, name, value",
    [
        (["--names", "a,b"], "names", ["a", "b"]),
        (["--names", "[a,b]"], "names", ["a", "b"]),
        (["--names=[a, b]"], "names", ["a", "b"]),
        (["--names", '["a,b", "no", "1"]'], "names", ["a,b", "no", "1"]),
        (["--names", "griffin-lim"], "names", ["griffin-lim"]),
        (["--names", "[]"], "names", []),
        (["--names", "a", "--names+", "b"], "names", ["a", "b"]),
        (["--plot"], "plot", True),
        (["--no-plot"], "plot", False),
        (["--plot", "no"], "plot", False),
        (["--plot", "yes"], "plot", True),
        (["--plot=false"], "plot", False),
        (["--weights.hifi-gan", "p q"], "weights", {"hifi-gan": "p q"}),
        (["--weights.a=1", "--weights.b=no"], "weights", {"a": "1", "b": "no"}),
        (["--sizes", "{a: 1}", "--sizes.b", "2"], "sizes", {"a": 1, "b": 2}),
        (["--title", "-x"], "title", "-x"),
        (["--title", ""], "title", ""),
        (["--rate", "-1e-3"], "rate", -0.001),
        (["--limit", "null"], "limit", None),
        (["--batches", "7"], "batches", 7),
        (["--kind", "no"], "kind", "no"),
        (["--highest", "1"], "rate", 1.0),
        (["--highest=1"], "rate", 1.0),
        (["--most", "9"], "count", 9),
    ],
)
def test_each_kind_of_option_has_one_rule(words, name, value):
    assert getattr(cli.parse("toy", ["file", *words]), name) == value
    assert getattr(cli.parse("toy", [*words, "--", "file"]), name) == value


@pytest.mark.parametrize(
    "words, message",
    [
        (["--coun", "1"], "unknown option --coun; did you mean count"),
        (["--count"], "--count needs a value"),
        (["--count", "--plot"], "--count needs a value"),
        (["--count", "1.5"], "count"),
        (["--plot", "--json"], "unknown option --json"),
        (["--plot=maybe"], "plot"),
        (["--sizes", "3"], "is not a mapping"),
        (["--sizes.a", "x"], "sizes"),
        (["--count.a", "3"], "takes one value"),
        (["--names", "[a"], "not valid YAML"),
        (["--kind", "neither"], "kind"),
    ],
)
def test_invalid_arguments_are_reported_in_one_line(words, message):
    with pytest.raises(SasvError, match=message) as caught:
        cli.parse("toy", ["file", *words])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "words, message",
    [
        (["--by", "attack", "codec"], "write a list with commas: --by attack,codec"),
        (["--device", "cpu", "cuda"], "--device takes one value, but 'cuda' follows 'cpu'"),
        (["scores.tsv"], "scores.tsv belongs to no option"),
    ],
)
def test_arguments_that_belong_to_no_option(words, message):
    with pytest.raises(SasvError, match=message):
        cli.parse("evaluate", words)


def test_old_names_are_accepted_with_a_notice(tmp_path, caplog):
    caplog.set_level("INFO", "sasv")
    cli.parse("toy", ["x", "--highest", "1"])
    assert caplog.messages == [
        "--highest is now --rate; the old name will be removed in the next version"
    ]
    caplog.clear()
    path = tmp_path / "c.yaml"
    path.write_text("files: [a, b]\nmost: 4\nhighest: 1e-8\nnames: p,q\n")
    options = cli.parse("toy", ["--config", str(path), "--rate", "2"])
    assert (options.files, options.count, options.rate, options.names) == (
        ["a", "b"],
        4,
        2.0,
        ["p", "q"],
    )
    assert (
        caplog.messages[0]
        == f"{path}: most is now count; the old name will be removed in the next version"
    )
    assert len(caplog.messages) == 2


@pytest.mark.parametrize(
    "text, message",
    [
        ("a: &a [x, x]\nb: &b [*a, *a]\n", "uses a YAML alias"),
        ("names: " + "[" * 5000 + "]" * 5000, "nested deeper"),
        ("names: " + "[" * 50_000, "nested deeper"),
        ("- a\n", "contains no options"),
        ("title: yes\n", "title is a text; write its value in quotes"),
        ("title:\n", "title has no value"),
        ("colour: red\n", "unknown option 'colour'"),
        ("a: [b", "not valid YAML"),
        ("rate: 1\ntitle: x\nrate: 2\n", "line 3: rate is given twice"),
        ("sizes: {a: 1, a: 2}\n", "line 1: a is given twice"),
        ('{"rate": 1, "rate": 2}', "rate is given twice"),
        ("rate: 2026-01-01\n", "--rate is 2026-01-01; it must be a number"),
        ("no-plot: true\n", "unknown option 'no-plot'"),
        ("a-b: 1\nfi-les: x\n", "unknown option 'a-b'"),
        ("title: !!python/object/apply:os.system [x]\n", "not valid YAML"),
    ],
)
def test_yaml_is_bounded_and_checked(tmp_path, text, message):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(SasvError, match=message):
        cli.parse("toy", ["x", "--config", str(path)])


def test_a_huge_or_undecodable_yaml_file(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_bytes(b"title: " + b"x" * 2_000_000)
    with pytest.raises(SasvError, match="larger than"):
        cli.parse("toy", ["x", "--config", str(path)])
    path.write_bytes(b"title: \xff")
    with pytest.raises(SasvError, match="not a UTF-8 text file"):
        cli.parse("toy", ["x", "--config", str(path)])


@pytest.mark.parametrize("name", list(COMMANDS))
def test_defaults_apply_without_optional_arguments(name):
    kind = options_of(name)
    hints = typing.get_type_hints(kind)
    needed = {}
    for field in dataclasses.fields(kind):
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            needed[field.name] = ["x"] if field.name in ("recordings", "systems", "names") else "x"
            if typing.get_origin(hints[field.name]) is typing.Literal:
                needed[field.name] = typing.get_args(hints[field.name])[0]
    options = kind(**needed)
    words = words_of(options, COMMANDS[name].positionals)
    assert cli.parse(name, words) == options
    assert set(Words(kind).names) == {field.name for field in dataclasses.fields(kind)}
