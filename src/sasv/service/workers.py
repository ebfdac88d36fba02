"""Threads for work that must not block the event loop, with a limit on waiting requests."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sasv.service.metrics import Metrics
from sasv.service.problems import Problem
from sasv.service.settings import Settings

Result = TypeVar("Result")

STORE_THREADS = 4


class Workers:
    """Some threads decode and embed, and others read and write the store.

    Attributes:
        pending: number of requests that are being computed or are waiting.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        """Begin without threads; they are started when needed."""
        self.settings = settings
        self.metrics = metrics
        self.pending = 0
        self._computing = ThreadPoolExecutor(settings.workers, "sasv-compute")
        self._storing = ThreadPoolExecutor(STORE_THREADS, "sasv-store")

    def check(self) -> None:
        """Raise Problem if no further request may wait."""
        if self.pending >= self.settings.workers + self.settings.queue:
            text = f"{self.pending} requests are already waiting; try again later"
            raise Problem(503, "busy", text, {"Retry-After": "1"})

    async def compute(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """Run a function that takes long. Raises Problem if too many requests are waiting."""
        self.check()
        self.pending += 1
        self._show()
        loop = asyncio.get_running_loop()
        try:
            future = self._computing.submit(work, *arguments)
        except BaseException:
            self._done()
            raise
        # Not when this task ends, because it may be cancelled while the thread continues.
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._done))
        return await asyncio.wrap_future(future)

    async def store(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """Run a function that reads or writes the store."""
        return await asyncio.get_running_loop().run_in_executor(self._storing, work, *arguments)

    def close(self) -> None:
        """Finish the work in progress."""
        self._computing.shutdown()
        self._storing.shutdown()

    def _done(self) -> None:
        self.pending -= 1
        self._show()

    def _show(self) -> None:
        self.metrics.computing.set(min(self.pending, self.settings.workers))
        self.metrics.waiting.set(max(0, self.pending - self.settings.workers))
