"""What the command line prints of the result of each command.

A command returns a result; here is the text that a person, or a program that reads ``--json``, sees of it.
A command without an entry prints nothing on standard output: its messages go to standard error.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Presenter(NamedTuple):
    """How the command line presents a command.

    Attributes:
        after: (result, options) -> the text that is printed; an empty text prints nothing.
        before: options -> a text that is printed before the command runs.
    """

    after: Callable[[Any, Any], str]
    before: Callable[[Any], str] | None = None


def info_text(result: Mapping[str, Any], options: Any) -> str:
    """Return the specification of a checkpoint as JSON."""
    return json.dumps(result, indent=1, ensure_ascii=False)


def models_text(rows: list[dict[str, Any]], options: Any) -> str:
    """Return the list of named weights as a table, or as JSON."""
    if options.json:
        return json.dumps(rows, indent=1, ensure_ascii=False)
    header = ("name", "encoder", "trained on", "published", "MB", "licence", "here", "where it is")
    lines = [header]
    for row in rows:
        published = "-" if row.get("published") is None else f"{row['published']:.2f}%"
        size = f"{row['megabytes']:.0f}" if row.get("megabytes") else "-"
        lines.append(
            (
                row["name"],
                row.get("encoder", "-"),
                row.get("train_set", "-"),
                published,
                size,
                row.get("licence", "in its card"),
                "yes" if row["path"] else "no",
                row["source"],
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    shown = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
    note = "published: SASV-EER on the ASVspoof2019 LA evaluation. Fetch: sasv download NAME. Use: --model NAME."
    return "\n".join([*shown, "", note])


PRESENTERS = {
    "info": Presenter(info_text),
    "models": Presenter(models_text),
}
