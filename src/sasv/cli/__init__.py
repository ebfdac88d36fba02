"""The command line: words to options to a command, and its result to text. The only room that prints."""

from sasv.cli.parser import parse
from sasv.cli.program import main

__all__ = ["main", "parse"]
