"""The command line: parses arguments into options, calls the command, and prints its result.

It is the only room that prints.
"""

from sasv.cli.program import main
from sasv.core.lazy import lazily

__all__ = ["main", "parse"]

# A list of commands does not need the parser.
__getattr__ = lazily(__name__, {"parser": ("parse",)})
