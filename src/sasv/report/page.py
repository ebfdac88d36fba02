"""A report as an HTML page that needs no network, as Markdown with figures, and as one image."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sasv.core.files import write_bytes, write_text
from sasv.report.figures import stack, text_image
from sasv.report.markup import escape_markdown, plain
from sasv.storage.locations import container_of, scheme_of


@dataclass
class Cell:
    """A cell of a table.

    Attributes:
        text: what it says.
        best: shown in bold.
        audio: file to listen to.
        beside: whether the path of the file is relative to the folder of the page.
        small: what follows in smaller type, on a line of its own if there is room for lines.
    """

    text: str
    best: bool = False
    audio: str = ""
    small: str = ""
    beside: bool = False

    @property
    def line(self) -> str:
        """The whole cell as one line."""
        return f"{self.text} {self.small}".rstrip()

    @property
    def address(self) -> str:
        """URL of the audio file; empty if a browser cannot open the file."""
        if self.beside:
            return quote(self.audio)
        scheme = scheme_of(self.audio)
        if not self.audio or container_of(self.audio) != self.audio:
            return ""
        if scheme:
            return self.audio if scheme in ("http", "https") else ""
        return Path(self.audio).resolve().as_uri()


@dataclass
class Section:
    """A heading with a note, a table and figures, each of which may be missing.

    Attributes:
        title: the heading.
        note: a sentence on how to read it.
        header: of the table.
        rows: of the table.
        figures: name -> PNG file.
    """

    title: str
    note: str = ""
    header: Sequence[str] = ()
    rows: Sequence[Sequence[Cell]] = ()
    figures: dict[str, bytes] = field(default_factory=dict)

    @property
    def anchor(self) -> str:
        """Anchor for links within the page."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.title.lower())

    def html(self) -> str:
        """Return the section as HTML with embedded figures."""
        return _html().get_template("section.html").render(section=self)

    def markdown(self, folder: str) -> str:
        """Return the section as Markdown; figures are links into ``folder``."""
        return _markdown().get_template("section.md").render(section=self, folder=folder)

    def text(self) -> str:
        """Return the heading and the table as aligned text."""
        lines = [plain(self.title), "-" * len(plain(self.title))]
        table: list[list[str]] = []
        if self.header:
            table.append([plain(name) for name in self.header])
            table += [[plain(cell.line) for cell in row] for row in self.rows]
        widths = [max(map(len, column)) for column in zip(*table)]
        for row in table:
            cells = [
                cell.ljust(width) if not at else cell.rjust(width)
                for at, (cell, width) in enumerate(zip(row, widths))
            ]
            lines.append("  ".join(cells).rstrip())
        return "\n".join(lines)


def write_report(
    title: str, about: str, sections: Sequence[Section], out: Path, image: bool = True
) -> None:
    """Write ``report.html``, ``report.md`` with ``figures/``, and, if ``image``, ``report.png``
    into a folder.
    """
    page = {"title": title, "about": about, "sections": sections, "folder": "figures"}
    write_text(out / "report.html", _html().get_template("page.html").render(page) + "\n")
    write_text(out / "report.md", _markdown().get_template("page.md").render(page).strip() + "\n")
    images: list[bytes] = []
    for section in sections:
        if image:
            images.append(text_image(section.text()))
        for name, figure in section.figures.items():
            write_bytes(out / "figures" / f"{name}.png", figure)
            images.append(figure)
    if image:
        heading = text_image(f"{plain(title)}\n{plain(about)}")
        write_bytes(out / "report.png", stack([heading, *images]))


@cache
def _html() -> Environment:
    """Return the HTML templates, in which every value is escaped."""
    found = Environment(
        loader=PackageLoader("sasv.report"), autoescape=True, undefined=StrictUndefined
    )
    found.filters["base64"] = lambda data: base64.b64encode(data).decode()
    found.finalize = lambda value: value if isinstance(value, Markup) else _utf8(plain(value))
    return found


@cache
def _markdown() -> Environment:
    """Return the Markdown templates, in which every value is escaped unless it is filtered with
    ``raw``.
    """
    found = Environment(
        loader=PackageLoader("sasv.report"), autoescape=False, undefined=StrictUndefined
    )
    found.filters["raw"] = Markup
    found.finalize = lambda value: (
        value if isinstance(value, Markup) else _utf8(escape_markdown(value))
    )
    return found


def _utf8(text: str) -> str:
    return text.encode(errors="replace").decode()


def table_rows(rows: Sequence[Sequence[Any]]) -> list[list[Cell]]:
    """Return plain values as cells."""
    return [
        [value if isinstance(value, Cell) else Cell(str(value)) for value in row] for row in rows
    ]
