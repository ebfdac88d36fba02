"""Handles SIGTERM and Ctrl-C as requests to stop: training saves after the current batch, then
ends.
"""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

import torch

from sasv.parallel.processes import Processes


class Stopped(Exception):
    """A signal asked the training to end, and its state is saved."""


class StopRequest:
    """Notes SIGTERM and Ctrl-C while it listens. A second Ctrl-C interrupts at once.

    Attributes:
        signal: number of the signal that came, None where none did.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._at_once = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Note signals within the block. Only the main thread can; elsewhere nothing changes."""
        before: dict[signal.Signals, Any] = {}
        with contextlib.suppress(ValueError):
            for number in (signal.SIGTERM, signal.SIGINT):
                before[number] = signal.signal(number, self._note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def asked(self, processes: Processes, device: torch.device) -> bool:
        """Whether a signal came to any of the processes; all of them ask at the same places."""
        return processes.any(self.signal is not None, device)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Raise Stopped as soon as a signal comes within the block: everything is saved already."""
        if self.signal is not None:
            raise Stopped
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        again = self.signal is not None
        self.signal = number
        if again and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self._at_once:
            raise Stopped
