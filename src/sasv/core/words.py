"""Converts command-line arguments to option values, and back.

There is one notation for each type of option:

* a number, a text or a choice: ``--max-seconds 9`` or ``--max-seconds=9`` (also ``--max_seconds``);
* a switch: ``--json``, ``--no-json``, or ``--json`` followed by true, false, yes or no;
* a list: ``--vocoders a,b`` or ``--vocoders [a,b]``; ``--vocoders+ c`` appends to it;
* a mapping: ``--weights.hifi-gan PATH`` or ``--weights '{hifi-gan: PATH}'``.

A YAML file given by ``--config`` sets the same options; arguments that follow it override it.
"""

import dataclasses
import json
import logging
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from sasv.core.errors import SasvError
from sasv.core.options import kind_of, plain, renamed_options, split_items
from sasv.core.yaml_files import parse_yaml, read_yaml

TRUE = ("true", "yes", "on")
FALSE = ("false", "no", "off")
PASSED_ON = ("-h", "--help", "--print-config", "--print_config")

logger = logging.getLogger("sasv")


class Words:
    """Collects the option values of a command from arguments and files.

    Attributes:
        values: option -> value as text, a list, or a mapping.
        positional: the positional arguments.
        passed_on: arguments for the parser itself (``--help``).
        given: switches of the command line itself (``--force``) that were given; they do not belong
            to the options of the command.
    """

    def __init__(self, kind: type, positionals: Sequence[str] = (), switches: Sequence[str] = ()):
        self.hints = typing.get_type_hints(kind)
        self.names = [field.name for field in dataclasses.fields(kind)]
        self.renamed = renamed_options(kind)
        self.positionals = positionals
        self.values: dict[str, Any] = {}
        self.positional: list[str] = []
        self.passed_on: list[str] = []
        self.switches = switches
        self.given: set[str] = set()

    def read(self, words: Sequence[str]) -> None:
        """Read the arguments that follow the command name.

        Raises:
            SasvError: an option is unknown, or its value is missing or malformed.
        """
        rest = list(words)
        while rest:
            word = rest.pop(0)
            if word == "--":
                self.positional += rest
                return
            if word in PASSED_ON:
                self.passed_on.append(word.replace("print-config", "print_config"))
            elif word.startswith("--"):
                before = len(rest)
                self._flag(word, rest)
                if len(rest) < before and rest and not self.positionals:
                    self._expect_option(word, words[len(words) - before], rest[0])
            else:
                self.positional.append(word)

    def read_file(self, path: str) -> None:
        """Read a YAML file of options.

        Raises:
            SasvError: the file cannot be read, or a key is unknown or has no usable value.
        """
        found = read_yaml(path)
        if not isinstance(found, dict):
            raise SasvError(
                f"{path}: contains no options; each line is a name and a value (epochs: 4)"
            )
        for key, value in found.items():
            name = self._current(str(key), path)
            if name not in self.names:
                hint = self._hint(name.replace("-", "_")).replace("-", "_")
                raise SasvError(f"{path}: unknown option '{key}'{hint}")
            if value is None and self.hints[name] is str:
                raise SasvError(f"{path}: {key} has no value; write '' for an empty text")
            if self.hints[name] is str and not isinstance(value, str):
                raise SasvError(f"{path}: {key} is a text; write its value in quotes")
            self.values[name] = self._of_text(name, value) if isinstance(value, str) else value

    def canonical(self) -> list[str]:
        """Return the collected values as arguments in one canonical notation, for the parser."""
        flags = [
            f"--{dashed(name)}={text_of(value)}"
            for name, value in self.values.items()
            if name not in self.positionals
        ]
        given = list(self.positional)
        if not given:  # positional arguments can be set in the file as well
            for name in self.positionals:
                value = self.values.get(name, [])
                given += value if isinstance(value, list) else [text_of(value)]
        return [*self.passed_on, *flags, *(["--"] if given else []), *given]

    def _flag(self, word: str, rest: list[str]) -> None:
        flag, equals, value = word.partition("=")
        option, _, key = flag[2:].partition(".")
        if option == "config":
            self.read_file(value if equals else self._next(flag, rest))
            return
        if option in self.switches and not equals:
            self.given.add(option)
            return
        name = option.replace("-", "_")
        added = name.endswith("+")
        name = self._current(name.removesuffix("+"))
        negated = name.removeprefix("no_")
        if (
            name not in self.names
            and negated in self.names
            and self.hints[negated] is bool
            and not equals
        ):
            self.values[negated] = False
            return
        if name not in self.names or name in self.positionals:
            raise SasvError(f"unknown option {flag}{self._hint(name)}")
        if self.hints[name] is bool:
            if not equals and rest and rest[0].lower() in (*TRUE, *FALSE):
                value = rest.pop(0)
            elif not equals:
                value = "true"
        elif not equals:
            value = self._next(flag, rest)
        if key:
            self._item(name, key, value)
        elif added:
            self.values[name] = [*self.values.get(name, []), *self._of_text(name, value)]
        else:
            self.values[name] = self._of_text(name, value)

    def _item(self, name: str, key: str, value: str) -> None:
        """Set one entry of a mapping."""
        if kind_of(self.hints[name]) is not dict:
            raise SasvError(f"--{dashed(name)} takes one value, not --{dashed(name)}.{key}")
        of_text = typing.get_args(plain(self.hints[name]))[1:] == (str,)
        before = self.values.get(name) or {}
        self.values[name] = {
            **before,
            key: value if of_text else parse_yaml(value, f"--{dashed(name)}.{key}"),
        }

    def _of_text(self, name: str, text: str) -> Any:
        """Convert a text to a bool, list or mapping if the option is one; leave the rest to the
        parser.
        """
        hint = self.hints[name]
        kind = kind_of(hint)
        if hint is bool:
            return True if text.lower() in TRUE else False if text.lower() in FALSE else text
        if kind is list:
            return list_of(text, typing.get_args(plain(hint)) == (str,), f"--{dashed(name)}")
        if kind is dict and text.strip() != "null":
            found = parse_yaml(text, f"--{dashed(name)}")
            if not isinstance(found, dict):
                raise SasvError(
                    f"--{dashed(name)}: '{text}' is not a mapping; write --{dashed(name)}.KEY VALUE"
                )
            return found
        return text

    def _current(self, name: str, source: str = "") -> str:
        """Return the current name of an option; log a notice if the given name is an old one."""
        new = self.renamed.get(name)
        if new is None:
            return name
        shown = (
            f"{source}: {name} is now {new}"
            if source
            else f"--{dashed(name)} is now --{dashed(new)}"
        )
        logger.warning("%s; the old name will be removed in the next version", shown)
        return new

    def _expect_option(self, flag: str, value: str, word: str) -> None:
        """Explain a second value of an option, in a command whose arguments are all options."""
        if word.startswith("-"):
            return
        name = flag[2:].removesuffix("+").replace("-", "_")
        text = f"{flag} takes one value, but '{word}' follows '{value}'"
        if name in self.hints and kind_of(self.hints[name]) is list:
            text = f"{text}; write a list with commas: {flag} {value},{word}"
        raise SasvError(text)

    def _next(self, flag: str, rest: list[str]) -> str:
        if not rest or self._is_option(rest[0]):
            raise SasvError(f"{flag} needs a value")
        return rest.pop(0)

    def _is_option(self, word: str) -> bool:
        if word in PASSED_ON:
            return True
        name = (
            word.partition("=")[0]
            .partition(".")[0]
            .removeprefix("--")
            .replace("-", "_")
            .removesuffix("+")
        )
        return word.startswith("--") and (
            name in self.names
            or name in self.renamed
            or name == "config"
            or name in self.switches
            or (name.startswith("no_") and self.hints.get(name.removeprefix("no_")) is bool)
        )

    def _hint(self, name: str) -> str:
        import difflib

        known = [known for known in self.names if known not in self.positionals]
        near = difflib.get_close_matches(name, known, 1)
        return f"; did you mean {dashed(near[0])}?" if near else ""


def words_of(
    options: Any, positionals: Sequence[str] = (), preset: Mapping[str, Any] | None = None
) -> list[str]:
    """Return the command-line arguments that produce these options: the inverse of
    ``sasv.cli.parse``.

    Args:
        options: options of a command.
        positionals: names of the options that are given by position.
        preset: values that need no argument, for instance those of a recipe. For all other options
            the default needs none.
    """
    positional: list[str] = []
    flags: list[str] = []
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if field.name in positionals:
            positional += value if isinstance(value, list) else [str(value)]
            continue
        usual: Any = field.default
        if field.default_factory is not dataclasses.MISSING:
            usual = field.default_factory()
        if preset is not None and field.name in preset:
            usual = preset[field.name]
        if value == usual and type(value) is type(usual):
            continue
        flag = f"--{dashed(field.name)}"
        if isinstance(value, dict) and value and not usual and all(map(_bare_key, value)):
            flags += [f"{flag}.{key}={text_of(part)}" for key, part in value.items()]
            continue
        text = ",".join(value) if isinstance(value, list) and _bare_list(value) else text_of(value)
        flags += [f"{flag}={text}"] if text.startswith("-") else [flag, text]
    if any(word.startswith("-") for word in positional):
        return [*flags, "--", *positional]
    return [*positional, *flags]


def text_of(value: Any) -> str:
    """Write a value as the text that the parser reads back as the same value."""
    if isinstance(value, str):
        return value
    return json.dumps(value)


def list_of(text: str, of_text: bool, where: str) -> list[Any]:
    """Return the items of a list in either notation, ``a,b`` or ``[a,b]``.

    Args:
        text: the list.
        of_text: whether the items are texts, which are then not converted to numbers.
        where: the option, for the message.

    Raises:
        SasvError: the text is not a list.
    """
    if text.strip().startswith("["):
        found = parse_yaml(text, where, texts=of_text)
        if not isinstance(found, list):
            raise SasvError(f"{where}: '{text}' is not a list; write {where} a,b")
        return found
    parts = split_items(text)
    return parts if of_text else [parse_yaml(part, where) for part in parts]


def dashed(name: str) -> str:
    """Return an option name as it is written in a flag, with dashes."""
    return name.replace("_", "-")


def _bare_key(key: Any) -> bool:
    return isinstance(key, str) and key.replace("-", "").replace("_", "").isalnum()


def _bare_list(items: list[Any]) -> bool:
    """Whether a list can be written as ``a,b``, without brackets, and reads back the same."""
    return bool(items) and all(
        isinstance(item, str) and item and item == item.strip() and not set(item) & set(",[]{}\"'")
        for item in items
    )
