"""Prints the log messages of the library as plain lines on standard error."""

import contextlib
import logging
from collections.abc import Iterator

from sasv.core.progress import write_line


@contextlib.contextmanager
def messages(level: int = logging.INFO) -> Iterator[None]:
    """Show what the library logs, a plain line each on standard error, within the block."""
    logger = logging.getLogger("sasv")
    if any(isinstance(handler, Lines) for handler in logger.handlers):
        yield
        return
    handler = Lines()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


class Lines(logging.Handler):
    """Writes each message as a line on the standard error of that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message."""
        write_line(self.format(record))
