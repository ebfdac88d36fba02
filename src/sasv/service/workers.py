"""Threads for what must not block the event loop, with a bound on what waits for them."""

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
    """Threads that decode and embed, and others that read and write the store.

    Attributes:
        pending: requests that are computed or wait for it.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        """Start without a thread; they are made when they are needed."""
        self.settings = settings
        self.metrics = metrics
        self.pending = 0
        self._computing = ThreadPoolExecutor(settings.workers, "sasv-compute")
        self._storing = ThreadPoolExecutor(STORE_THREADS, "sasv-store")

    def check(self) -> None:
        """Raise Problem where no further request may wait."""
        if self.pending >= self.settings.workers + self.settings.queue:
            text = f"{self.pending} requests wait already; try again later"
            raise Problem(503, "busy", text, {"Retry-After": "1"})

    async def compute(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """Run something that takes long. Problem where too much waits already."""
        self.check()
        self.pending += 1
        self._show()
        loop = asyncio.get_running_loop()
        try:
            future = self._computing.submit(work, *arguments)
        except BaseException:
            self._done()
            raise
        # Not when this task ends: it may be cancelled while the thread goes on.
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._done))
        return await asyncio.wrap_future(future)

    async def store(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """Run something that reads or writes the store."""
        return await asyncio.get_running_loop().run_in_executor(self._storing, work, *arguments)

    def close(self) -> None:
        """Finish what was begun."""
        self._computing.shutdown()
        self._storing.shutdown()

    def _done(self) -> None:
        self.pending -= 1
        self._show()

    def _show(self) -> None:
        self.metrics.computing.set(min(self.pending, self.settings.workers))
        self.metrics.waiting.set(max(0, self.pending - self.settings.workers))
