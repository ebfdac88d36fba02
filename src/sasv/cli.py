"""The command line: thin. It parses options into a command's dataclass and calls the function of the same name."""

import dataclasses
import difflib
import importlib
import re
import sys
import typing
from collections.abc import Sequence
from typing import Any

from sasv.commands import COMMANDS, POSITIONALS
from sasv.core.errors import SasvError
from sasv.training.recipes import recipe, recipes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``sasv``; return the exit status (0 done, 2 a mistake that one line explains, 130 interrupted)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return 0 if words else 2
    if words[0] == "--version":
        from sasv.core.version import __version__

        print(f"sasv {__version__}")
        return 0
    name = words[0]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        print(f"sasv: unknown command '{name}'{hint} (sasv --help lists them)", file=sys.stderr)
        return 2
    try:
        options = parse(name, words[1:])
        getattr(importlib.import_module(f"sasv.commands.{COMMANDS[name].module}"), name)(options)
    except SasvError as error:
        print(f"sasv {name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"sasv {name}: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    return 0


def overview() -> str:
    """Return the help page, made without importing any command."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: sasv COMMAND [options]",
            "",
            "Spoofing-aware speaker verification: one embedding that accepts the claimed speaker and rejects",
            "both other people and synthetic copies.",
            "",
            "commands:",
            *lines,
            "",
            "sasv COMMAND --help shows its options; every option may stand in a YAML file given by --config.",
        ]
    )


def parse(name: str, words: Sequence[str]) -> Any:
    """Parse the words after a command into its options. Exits with status 2 and one line where they do not fit."""
    import jsonargparse

    command = COMMANDS[name]
    kind = getattr(importlib.import_module(f"sasv.commands.{command.module}"), command.options)
    switches = {field.name for field in dataclasses.fields(kind) if field.type in (bool, "bool")}
    words = _switched([_underscored(word) for word in words], switches)
    if name == "train" and words and not words[0].startswith("-"):
        words = ["--config", recipe(words[0]), *words[1:]]
    description = command.summary
    if name == "train":
        description += f"; the first word may be a YAML file or a recipe: {', '.join(recipes())}"
    parser = jsonargparse.ArgumentParser(
        prog=f"sasv {name}", description=description, exit_on_error=False, formatter_class=_formatter()
    )
    parser.add_argument("--config", action="config", help="YAML file of options")
    positional = POSITIONALS.get(name, ())
    hints = typing.get_type_hints(kind)
    helps = _helps(kind)
    for field in dataclasses.fields(kind):
        if field.name in positional:
            many = {"nargs": "+", "type": str} if hints[field.name] == list[str] else {"type": hints[field.name]}
            parser.add_argument(field.name, help=helps.get(field.name), **many)
    parser.add_class_arguments(kind, skip=set(positional))
    _dashed(parser)
    try:
        values = parser.parse_args(list(words))
    except (jsonargparse.ArgumentError, TypeError) as error:
        text = " ".join(str(error).split())
        raise SasvError(f"{text} (sasv {name} --help shows the options)") from error
    found = values.as_dict()
    return kind(**{field.name: found[field.name] for field in dataclasses.fields(kind)})


def _underscored(word: str) -> str:
    """Accept --max-seconds for --max_seconds; a key after a dot is left as it is (--weights.hifi-gan PATH)."""
    flag, equals, value = word.partition("=")
    if not flag.startswith("--"):
        return word
    option, dot, key = flag[2:].partition(".")
    return "--" + option.replace("-", "_") + dot + key + equals + value


def _switched(words: Sequence[str], switches: set[str]) -> list[str]:
    """Accept a bare --json for --json=true, and --no-json for --json=false."""
    result = []
    for index, word in enumerate(words):
        name = word.removeprefix("--")
        value = words[index + 1] if index + 1 < len(words) else ""
        if word.startswith("--no_") and name.removeprefix("no_") in switches:
            word = f"--{name.removeprefix('no_')}=false"
        elif word.startswith("--") and name in switches and value not in ("true", "false"):
            word = f"--{name}=true"
        result.append(word)
    return result


def _formatter() -> type:
    """Return a formatter of help pages that shows a number with its range as ``type: int, at least 1``."""
    import jsonargparse

    class Formatter(jsonargparse.DefaultHelpFormatter):  # type: ignore[misc, unused-ignore]
        def _expand_help(self, action: Any) -> str:
            return re.sub(r"Annotated\[(.*?), <(.*?)>\]", r"\1, \2", super()._expand_help(action))

    return Formatter


def _dashed(parser: Any) -> None:
    """Show flags with dashes in the help."""
    for action in parser._actions:
        action.option_strings = [
            "--" + flag[2:].replace("_", "-") if flag.startswith("--") else flag for flag in action.option_strings
        ]


def _helps(kind: type) -> dict[str, str]:
    """Help of each option, from the docstring of the dataclass."""
    import docstring_parser

    return {entry.arg_name: entry.description or "" for entry in docstring_parser.parse(kind.__doc__ or "").params}


if __name__ == "__main__":
    sys.exit(main())
