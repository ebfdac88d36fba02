"""A report as a page without network (HTML), as Markdown beside its figures, and as one image."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sasv.core.files import write_bytes, write_text
from sasv.report.figures import png, stack, text_figure

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1120px; padding: 0 1rem; color: #1b1b1b; }
h1 { margin-bottom: .2rem; } h2 { margin-top: 2.2rem; border-bottom: 1px solid #ddd; padding-bottom: .2rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #eee; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } thead th { border-bottom: 2px solid #999; }
img { max-width: 100%; height: auto; } p.note { color: #555; max-width: 75ch; } .best { font-weight: 700; }
small { color: #555; }
nav a { margin-right: 1rem; } audio { height: 1.8rem; vertical-align: middle; }
"""


@dataclass
class Cell:
    """A cell of a table.

    Attributes:
        text: what it says.
        best: shown in bold.
        audio: file to listen to.
        small: what follows in smaller type, on a line of its own where there is room for lines.
    """

    text: str
    best: bool = False
    audio: str = ""
    small: str = ""

    @property
    def line(self) -> str:
        """All of it in a line."""
        return f"{self.text} {self.small}".rstrip()


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

    def html(self) -> str:
        """Return it as HTML, figures inside."""
        parts = [f'<h2 id="{_anchor(self.title)}">{html.escape(self.title)}</h2>']
        if self.note:
            parts.append(f'<p class="note">{html.escape(self.note)}</p>')
        if self.header:
            head = "".join(f"<th>{html.escape(name)}</th>" for name in self.header)
            body = "".join(f"<tr>{''.join(map(_html_cell, row))}</tr>" for row in self.rows)
            parts.append(f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>')
        for name, image in self.figures.items():
            data = base64.b64encode(image).decode()
            parts.append(f'<p><img alt="{html.escape(name)}" src="data:image/png;base64,{data}"></p>')
        return "\n".join(parts)

    def markdown(self, folder: str) -> str:
        """Return it as Markdown; figures are links into a folder."""
        parts = [f"## {self.title}"]
        if self.note:
            parts.append(self.note)
        if self.header:
            rows = [f"| {' | '.join(map(_markdown_cell, row))} |" for row in self.rows]
            lines = [f"| {' | '.join(self.header)} |", f"|---|{'---:|' * (len(self.header) - 1)}", *rows]
            parts.append("\n".join(lines))
        parts += [f"![{name}]({folder}/{name}.png)" for name in self.figures]
        return "\n\n".join(parts)

    def text(self) -> str:
        """Return its heading and table as aligned text."""
        lines = [self.title, "-" * len(self.title)]
        table = [list(self.header), *([cell.line for cell in row] for row in self.rows)] if self.header else []
        widths = [max(map(len, column)) for column in zip(*table)]
        for row in table:
            cells = [
                cell.ljust(width) if not at else cell.rjust(width) for at, (cell, width) in enumerate(zip(row, widths))
            ]
            lines.append("  ".join(cells).rstrip())
        return "\n".join(lines)


def write_report(title: str, about: str, sections: Sequence[Section], out: Path) -> None:
    """Write ``report.html``, ``report.md`` with ``figures/``, and ``report.png`` into a folder."""
    links = "".join(f'<a href="#{_anchor(one.title)}">{html.escape(one.title)}</a>' for one in sections)
    page = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>",
        f'<h1>{html.escape(title)}</h1><p class="note">{html.escape(about)}</p><nav>{links}</nav>',
        *(section.html() for section in sections),
        "</body></html>",
    ]
    write_text(out / "report.html", "\n".join(page) + "\n")
    text = [f"# {title}", about, *(section.markdown("figures") for section in sections)]
    write_text(out / "report.md", "\n\n".join(text) + "\n")
    images: list[bytes] = [png(text_figure(f"{title}\n{about}"))]
    for section in sections:
        images.append(png(text_figure(section.text())))
        for name, image in section.figures.items():
            write_bytes(out / "figures" / f"{name}.png", image)
            images.append(image)
    write_bytes(out / "report.png", stack(images))


def _html_cell(cell: Cell) -> str:
    text = html.escape(cell.text)
    if cell.best:
        text = f'<span class="best">{text}</span>'
    if cell.small:
        text += f"<br><small>{html.escape(cell.small)}</small>"
    if cell.audio:
        source = html.escape(Path(cell.audio).resolve().as_uri(), quote=True)
        text = f'<a href="{source}">{text}</a> <audio controls preload="none" src="{source}"></audio>'
    return f"<td>{text}</td>"


def _markdown_cell(cell: Cell) -> str:
    text = cell.line.replace("|", "\\|")
    text = f"[{text}](<{cell.audio}>)" if cell.audio else text
    return f"**{text}**" if cell.best else text


def _anchor(title: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in title.lower())


def table_rows(rows: Sequence[Sequence[Any]]) -> list[list[Cell]]:
    """Return plain values as cells."""
    return [[value if isinstance(value, Cell) else Cell(str(value)) for value in row] for row in rows]
