"""Pages that are made when the site is built, so that they cannot drift from the code.

* ``reference/cli.md``: every command with its options, from the dataclasses.
* ``reference/api/ROOM.md``: every public module of a room, from the docstrings.
* ``model-card.md``: the card of the model in the package.
* ``notebooks/NAME.md``: the notebooks as pages, without running them.
"""

import dataclasses
import importlib
import json
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

import sasv
from sasv.cli.parser import description_of, helps_of
from sasv.commands import COMMANDS
from sasv.core.options import renamed_options, type_words
from sasv.training.recipes import recipes

DOCS = Path(__file__).resolve().parents[1]
SOURCE = Path(sasv.__file__).parent


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the generators to the build. ``-D sasv_api=0`` leaves out the API pages, most of the
    work.
    """
    app.add_config_value("sasv_api", True, "env")
    app.connect("config-inited", generate)
    app.connect("source-read", rewrite_links)
    return {"parallel_read_safe": True}


def generate(app: Sphinx, config: Any) -> None:
    """Write all generated pages; a page that did not change is left alone, so that rebuilds are
    quick.
    """
    pages = {
        "reference/cli.md": command_line(),
        "model-card.md": (SOURCE / "weights" / "default.md").read_text(),
    }
    rooms = re.findall(
        r"^\| `(\w+)` \| ([^|]*)", (DOCS / "architecture.md").read_text(), re.MULTILINE
    )
    if not config.sasv_api:
        rooms = []
    for room, job in rooms:
        pages[f"reference/api/{room}.md"] = room_page(room, job.strip())
    listed = "\n".join(room for room, _ in rooms)
    pages["reference/api/index.md"] = (
        f"# API by room\n\n```{{toctree}}\n:maxdepth: 1\n\n{listed}\n```\n"
    )
    for notebook in (DOCS / "notebooks").glob("*.ipynb"):
        pages[f"notebooks/{notebook.stem}.md"] = notebook_page(notebook)
    for path in (DOCS / "reference" / "api").glob("*.md"):  # of rooms that are no more
        if f"reference/api/{path.name}" not in pages:
            path.unlink()
    for name, text in pages.items():
        path = DOCS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def rewrite_links(app: Sphinx, page: str, content: list[str]) -> None:
    """Point links that leave docs/, right for a reader of the repository, to the pages made of
    their targets.
    """
    content[0] = re.sub(
        r"\]\((?:\.\./)+src/sasv/weights/default\.md\)", "](/model-card.md)", content[0]
    )


def command_line() -> str:
    """Return the reference of the command line."""
    lines = [
        "# Command line",
        "",
        "Every option can be given as a flag or in a YAML file (`--config FILE`); "
        "`--print_config` prints all",
        "values. A switch such as `--json` needs no value, and `--no-json` turns it off. Flags "
        "may be written with",
        "dashes or underscores.",
        "",
    ]
    for name, command in COMMANDS.items():
        kind = getattr(importlib.import_module(f"sasv.commands.{command.module}"), command.options)
        lines += [f"## sasv {name}", "", description_of(kind), ""]
        if name == "train":
            lines += [
                "The first word may be a YAML file or a recipe: "
                + ", ".join(f"`{one}`" for one in recipes()),
                "",
            ]
        lines += ["| option | type | default | |", "|---|---|---|---|"]
        for option in options(kind):
            flag = (
                option.name.upper()
                if option.name in command.positionals
                else f"--{option.name.replace('_', '-')}"
            )
            lines.append(f"| `{flag}` | {option.kind} | {option.default} | {option.help} |")
        renamed = renamed_options(kind)
        if renamed:
            lines += ["", "Old names that are still accepted, with a notice: "]
            lines[-1] += ", ".join(f"`{old}` (now `{new}`)" for old, new in renamed.items()) + "."
        lines.append("")
    return "\n".join(lines)


class Option(typing.NamedTuple):
    """One option as cells of the table."""

    name: str
    kind: str
    default: str
    help: str


def options(kind: type, prefix: str = "") -> Iterator[Option]:
    """Yield the options of a dataclass; those of a group are named ``group.option``."""
    hints = typing.get_type_hints(kind, include_extras=True)
    helps = helps_of(kind)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from options(hint, f"{prefix}{field.name}.")
            continue
        value = field.default
        if field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        default = (
            "required" if value is dataclasses.MISSING else f"`{json.dumps(value, default=str)}`"
        )
        yield Option(
            prefix + field.name,
            cell(type_words(hint)),
            cell(default),
            cell(helps.get(field.name, "")),
        )


def sentence(text: str) -> str:
    """Return text with a capital letter at its beginning and a full stop at its end."""
    return text[:1].upper() + text[1:] + ("" if not text or text.endswith(".") else ".")


def cell(text: str) -> str:
    """Escape what would end a cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ")


def room_page(room: str, job: str) -> str:
    """Return the page of a room: one section for each public module, in which autodoc fills in the
    members.
    """
    place = SOURCE / room
    if place.is_dir():
        names = sorted(path.stem for path in place.glob("*.py") if path.stem != "__init__")
        modules = [
            f"sasv.{room}",
            *(f"sasv.{room}.{name}" for name in names if not name.startswith("_")),
        ]
        if room == "commands":
            modules += [f"sasv.commands.{command.module}" for command in COMMANDS.values()]
    else:
        modules = [f"sasv.{room}"]
    lines = [f"# {room}", "", sentence(job), ""]
    for module in modules:
        lines += [f"## {module.replace('._', '.')}", "", "```{eval-rst}"]
        lines += [f".. automodule:: {module}", "   :ignore-module-all:"]
        lines += ["```", ""]
    return "\n".join(lines)


def notebook_page(path: Path) -> str:
    """Return a notebook as Markdown: its text, and its code as blocks."""
    lines = []
    for part in json.loads(path.read_text())["cells"]:
        text = "".join(part["source"])
        lines += [text if part["cell_type"] == "markdown" else f"```python\n{text}\n```", ""]
    lines += [f"The notebook itself: `docs/notebooks/{path.name}`.", ""]
    return "\n".join(lines)
