"""Escapes names in pages, so that no name becomes a link, a tag, a table cell, or a terminal
command.
"""

import unicodedata

SPECIAL = frozenset("\\`*_[]<>|&~$")
"""Characters that mean something inside a line of Markdown."""


def plain(text: object) -> str:
    """Return a text as one line without control characters, such as those that move a terminal's
    cursor.
    """
    kept = (
        letter if unicodedata.category(letter) not in ("Cc", "Cf", "Cs") else " "
        for letter in str(text)
    )
    return " ".join("".join(kept).split())


def escape_markdown(text: object) -> str:
    """Return a text that Markdown shows unchanged."""
    return "".join(f"\\{letter}" if letter in SPECIAL else letter for letter in plain(text))
