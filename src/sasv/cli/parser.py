"""Parses the arguments of a command, from flags and YAML files, into its typed options."""

import dataclasses
import importlib
import re
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from sasv.commands import COMMANDS, Command
from sasv.core.errors import SasvError
from sasv.core.options import kind_of, type_words
from sasv.core.words import Words, dashed, text_of

FORCE = "force"


def parse(name: str, words: Sequence[str]) -> Any:
    """Return the options that the arguments of a command give (see ``parse_all``)."""
    return parse_all(name, words)[0]


def parse_all(name: str, words: Sequence[str]) -> tuple[Any, bool]:
    """Return the options that the arguments of a command give, and whether ``--force`` is among
    them.

    Args:
        name: name of the command.
        words: its arguments; ``--config FILE`` reads a YAML file of options.

    Raises:
        SasvError: an option is unknown or missing, or its value is impossible.
        SystemExit: after ``--help`` or ``--print-config``.
    """
    command = COMMANDS[name]
    kind = options_of(name)
    found = Words(kind, command.positionals, (FORCE,) if command.outputs else ())
    words = list(words)
    if command.presets and words and not words[0].startswith("-"):
        found.read_file(_called(command.presets)(words.pop(0)))
    found.read(words)
    parser = _parser(name, command, kind, "yaml" if found.passed_on else "json")
    import jsonargparse

    try:
        values = parser.parse_args(found.canonical()).as_dict()
    except (jsonargparse.ArgumentError, TypeError, ValueError) as error:
        text = " ".join(str(error).split())
        text = _mistake(text, found, typing.get_type_hints(kind, include_extras=True))
        raise SasvError(f"{text} (sasv {name} --help shows the options)") from error
    options = kind(**{field.name: values[field.name] for field in dataclasses.fields(kind)})
    return options, FORCE in found.given


def options_of(name: str) -> type:
    """Return the class of a command's options."""
    command = COMMANDS[name]
    kind: type = getattr(
        importlib.import_module(f"sasv.commands.{command.module}"), command.options
    )
    return kind


def helps_of(kind: type) -> dict[str, str]:
    """Return the help of each option, from the docstrings of its class and of those it inherits
    from.
    """
    import docstring_parser

    found: dict[str, str] = {}
    for part in reversed(kind.__mro__):
        if dataclasses.is_dataclass(part):
            entries = docstring_parser.parse(part.__doc__ or "").params
            found |= {
                entry.arg_name: " ".join((entry.description or "").split()) for entry in entries
            }
    return found


def description_of(kind: type) -> str:
    """Return the description of a command, from the docstring of its options class."""
    import docstring_parser

    parsed = docstring_parser.parse(kind.__doc__ or "")
    return " ".join(f"{parsed.short_description} {parsed.long_description or ''}".split())


def _parser(name: str, command: Command, kind: type, mode: str) -> Any:
    import jsonargparse

    description = description_of(kind)
    if command.presets:
        module = importlib.import_module(command.presets.partition(":")[0])
        description += (
            f" The first word may be a YAML file or a recipe: {', '.join(module.recipes())}."
        )
    parser = jsonargparse.ArgumentParser(
        prog=f"sasv {name}",
        description=description,
        exit_on_error=False,
        formatter_class=_formatter(),
        parser_mode=mode,
    )
    parser.add_argument("--config", action="config", help="YAML file of options.")
    hints = typing.get_type_hints(kind, include_extras=True)
    helps = helps_of(kind)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        text = helps.get(field.name, "").replace("``", "") + _details(field, hint)
        if field.name in command.positionals:
            many: dict[str, Any] = (
                {"nargs": "+", "type": str} if kind_of(hint) is list else {"type": hint}
            )
            if field.default is not dataclasses.MISSING:
                many |= {"nargs": "?", "default": field.default}
            parser.add_argument(field.name, help=text, **many)
            continue
        more: dict[str, Any] = {"default": field.default}
        if field.default_factory is not dataclasses.MISSING:
            more = {"default": field.default_factory()}
        elif field.default is dataclasses.MISSING:
            more = {"required": True}
        parser.add_argument(f"--{dashed(field.name)}", type=hint, help=text, **more)
    if command.outputs:
        text = "overwrite files that sasv did not write, or that are inputs"
        parser.add_argument(f"--{FORCE}", action="store_true", help=f"{text}.")
    return parser


def _details(field: Any, hint: Any) -> str:
    """Return the text of a help page about the allowed values of an option and its default."""
    details = []
    if kind_of(hint) not in (bool, str, list, dict, typing.Literal):
        details.append(type_words(hint))
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    if default is dataclasses.MISSING:
        details.append("required")
    elif default not in ("", None, [], {}):
        shown = ",".join(map(str, default)) if isinstance(default, list) else text_of(default)
        details.append(f"default: {shown}")
    return f" ({'; '.join(details)})" if details else ""


def _mistake(text: str, words: Words, hints: Mapping[str, Any]) -> str:
    """Translate an error message of the parser into the terms of the command line."""
    value = re.match(r'Parser key "(\w+)"', text)
    if value and value[1] in hints and value[1] in words.values:
        given = text_of(words.values[value[1]])
        return f"--{dashed(value[1])} is {given}; it must be {type_words(hints[value[1]])}"
    if value and value[1] in words.positionals:
        given = text.rpartition("Got value: ")[2]
        return f"unknown {value[1]} '{given}'; it must be {type_words(hints[value[1]])}"
    missing = re.match(r"the following arguments are required: (.*)", text)
    if missing:
        names = missing[1].split(", ")
        flags = [name if name in words.positionals else f"--{dashed(name)}" for name in names]
        return f"these arguments are required: {', '.join(flags)}"
    surplus = re.match(r"unrecognized arguments: (?:-- )?(.*)", text)
    if surplus:
        return f"{surplus[1]} belongs to no option"
    return text


def _formatter() -> type:
    """Return a formatter of help pages that shows the help of an option unchanged."""
    import jsonargparse

    class Formatter(jsonargparse.DefaultHelpFormatter):  # type: ignore[misc, unused-ignore]
        def _get_help_string(self, action: Any) -> str:
            if "--print_config" in action.option_strings:
                return "print all options and their values as YAML, and exit."
            return action.help or ""

    return Formatter


def _called(path: str) -> Any:
    """Return the function that ``module:function`` names."""
    module, _, function = path.partition(":")
    return getattr(importlib.import_module(module), function)
