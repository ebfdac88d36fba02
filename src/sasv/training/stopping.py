"""Handles SIGTERM, Ctrl-C, a closed terminal (SIGHUP), and SIGUSR1 as requests to stop: training
saves its state after the current batch and ends.
"""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

import torch

from sasv.parallel.processes import Processes

STOPPING = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1")  # the last two are missing on Windows
    if hasattr(signal, name)
)
"""Signals that request a stop. SLURM sends SIGUSR1 where a job asks for it (``--signal=USR1@120``).
"""


class Stopped(Exception):
    """A signal requested the end of the training, and the state has been saved."""


class StopRequest:
    """Records the signals of STOPPING while it listens, except SIGHUP and SIGUSR1 where the process
    ignores them, as under ``nohup``. A second Ctrl-C interrupts immediately.

    Attributes:
        signal: number of the received signal, None if there was none.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._at_once = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Record signals within the block. In threads other than the main one, this does
        nothing.
        """
        before: dict[signal.Signals, Any] = {}
        with contextlib.suppress(ValueError):
            for number in STOPPING:
                ignored = signal.getsignal(number) == signal.SIG_IGN
                if number in (signal.SIGTERM, signal.SIGINT) or not ignored:
                    before[number] = signal.signal(number, self._note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def asked(self, processes: Processes, device: torch.device) -> bool:
        """Whether any of the processes received a signal; all processes must call this together."""
        return processes.any(self.signal is not None, device)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Raise Stopped immediately on a signal within the block, in which everything is already
        saved.
        """
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
