"""Progress of long jobs: a bar on a terminal, an occasional plain line in a log.

The library logs to ``logging.getLogger("sasv")`` and prints nothing itself. The command line
installs a handler; users of the library choose what they see
(``logging.basicConfig(level="INFO")``).
"""

import contextlib
import logging
import sys
import time
from types import TracebackType
from typing import Any

logger = logging.getLogger("sasv")

SECONDS_BETWEEN_LINES = 20.0


def duration(seconds: float) -> str:
    """Format seconds as ``1:02:03``, ``2:03`` or ``4.5 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Progress:
    """Counts finished items and shows their rate and the remaining time.

    ``with Progress("embed", total=100, unit="files") as progress: progress.add(1)``
    """

    def __init__(self, name: str, total: int, unit: str = "files", quiet: bool = False):
        self.name = name
        self.total = total
        self.unit = unit
        self.quiet = quiet or not logger.isEnabledFor(logging.INFO)
        self.done = 0
        self.started = time.monotonic()
        self.shown = self.started
        self.bar = None if self.quiet or not _on_terminal() else _bar(name, total, unit)

    def add(self, count: int = 1, note: str = "") -> None:
        """Count ``count`` more items as done; ``note`` is shown after the rate."""
        self.done += count
        if self.bar is not None:
            if note:
                self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(count)
            return
        now = time.monotonic()
        if not self.quiet and now - self.shown >= SECONDS_BETWEEN_LINES:
            self.shown = now
            logger.info("%s", self.line(note))

    def line(self, note: str = "") -> str:
        """Return the line that describes the current state."""
        elapsed = max(time.monotonic() - self.started, 1e-9)
        rate = self.done / elapsed
        left = (
            duration((self.total - self.done) / rate)
            if rate and self.done < self.total
            else duration(0)
        )
        percent = 100 * self.done / max(self.total, 1)
        tail = f", {note}" if note else ""
        return (
            f"{self.name}: {self.done}/{self.total} {self.unit} ({percent:.0f}%), "
            f"{rate:.1f}/s, {left} left{tail}"
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.close()
        if not self.quiet and kind is None:
            elapsed = time.monotonic() - self.started
            rate = self.done / max(elapsed, 1e-9)
            logger.info(
                "%s: %d %s in %s (%.1f/s)", self.name, self.done, self.unit, duration(elapsed), rate
            )


def write_line(text: str) -> None:
    """Print a line on standard error, above the progress bar if one is shown."""
    tqdm = getattr(sys.modules.get("tqdm"), "tqdm", None)
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if tqdm is not None and getattr(tqdm, "_instances", None):
            tqdm.write(text, file=sys.stderr)
        else:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()


def _on_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _bar(name: str, total: int, unit: str) -> Any:
    from tqdm import tqdm

    return tqdm(
        total=total, desc=name, unit=f" {unit}", leave=False, dynamic_ncols=True, file=sys.stderr
    )
