"""Progress of long work: one moving line on a terminal, a plain line now and then in a log."""

import logging
import sys
import time
from types import TracebackType

logger = logging.getLogger("sasv")
logger.addHandler(logging.NullHandler())


def say(text: str) -> None:
    """Log a line for the person who watches; the command line shows it on standard error."""
    logger.info("%s", text)


def duration(seconds: float) -> str:
    """Format seconds as ``1:02:03``, ``2:03`` or ``4.5 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Progress:
    """Counts work done and shows the rate and the time left.

    ``with Progress("embed", total=100, unit="files") as progress: progress.add(1)``
    """

    def __init__(self, name: str, total: int, unit: str = "files", quiet: bool = False):
        self.name, self.total, self.unit, self.quiet = name, total, unit, quiet
        self.done = 0
        self.terminal = sys.stderr.isatty()
        self.interval = 0.2 if self.terminal else 20.0
        self.started = self.shown = time.monotonic()

    def add(self, count: int = 1, note: str = "") -> None:
        """Count ``count`` more done; ``note`` is shown behind the rate."""
        self.done += count
        now = time.monotonic()
        if not self.quiet and now - self.shown >= self.interval:
            self.shown = now
            self._show(self.line(note), end="" if self.terminal else "\n")

    def line(self, note: str = "") -> str:
        """Return the line that is shown now."""
        elapsed = max(time.monotonic() - self.started, 1e-9)
        rate = self.done / elapsed
        left = duration((self.total - self.done) / rate) if rate and self.done < self.total else duration(0)
        percent = 100 * self.done / max(self.total, 1)
        tail = f", {note}" if note else ""
        return f"{self.name}: {self.done}/{self.total} {self.unit} ({percent:.0f}%), {rate:.1f}/s, {left} left{tail}"

    def _show(self, text: str, end: str) -> None:
        lead = "\r\x1b[K" if self.terminal else ""
        print(lead + text, end=end, file=sys.stderr, flush=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self.quiet and (self.terminal or kind is None):
            elapsed = time.monotonic() - self.started
            rate = self.done / max(elapsed, 1e-9)
            self._show(f"{self.name}: {self.done} {self.unit} in {duration(elapsed)} ({rate:.1f}/s)", end="\n")
