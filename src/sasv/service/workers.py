"""Threads for work that must not block the event loop, with a limit on waiting requests."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from sasv.service.metrics import Metrics
from sasv.service.problems import Problem
from sasv.service.settings import Settings

Result = TypeVar("Result")

STORE_THREADS = 1
"""The store has one connection; more threads would only wait for it and for Python's lock."""


@dataclass(frozen=True)
class Step:
    """A part of a request that runs in one thread.

    Attributes:
        work: is given the result of the step before, None at first.
        computes: whether it decodes and embeds, rather than reading or writing the store.
    """

    work: Callable[[Any], Any]
    computes: bool = False


@dataclass(frozen=True)
class Final:
    """The result of a step after which the remaining ones are not needed."""

    value: Any


class Workers:
    """Some threads decode and embed, and others read and write the store.

    Attributes:
        pending: number of requests that are being computed or are waiting.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        """Begin without threads; they are started when needed."""
        self.settings = settings
        self.pending = 0
        self._computing = ThreadPoolExecutor(settings.workers, "sasv-compute")
        self._storing = ThreadPoolExecutor(STORE_THREADS, "sasv-store")
        metrics.computing.set_function(lambda: min(self.pending, settings.workers))
        metrics.waiting.set_function(lambda: max(0, self.pending - settings.workers))

    def check(self) -> None:
        """Raise Problem if no further request may wait."""
        if self.pending >= self.settings.workers + self.settings.queue:
            text = f"{self.pending} requests are already waiting; try again later"
            raise Problem(503, "busy", text, {"Retry-After": "1"})

    async def compute(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """Run a function that takes long. Raises Problem if too many requests are waiting."""
        result: Result = await self.follow([Step(lambda _: work(*arguments), computes=True)])
        return result

    async def store(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """Run a function that reads or writes the store."""
        return await asyncio.get_running_loop().run_in_executor(self._storing, work, *arguments)

    async def follow(self, steps: Sequence[Step]) -> Any:
        """Run the steps of a request, and return the result of the last one.

        A thread hands over to that of the next step, without the event loop in between, which would
        have to compete with the computing threads for Python's lock each time. If the task that
        waits is cancelled, the step that has begun is the last one.

        Raises:
            Problem: a step computes, and too many requests are waiting.
        """
        computes = any(step.computes for step in steps)
        if computes:
            self.check()
            self.pending += 1
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Any] = loop.create_future()

        def end(value: Any, error: BaseException | None) -> None:
            # Not when the task ends, because it may be cancelled while the thread continues.
            self.pending -= computes
            if waiter.done():
                return
            if error is None:
                waiter.set_result(value)
            else:
                waiter.set_exception(error)

        def tell(value: Any, error: BaseException | None) -> None:
            with contextlib.suppress(RuntimeError):  # the event loop was closed
                loop.call_soon_threadsafe(end, value, error)

        def perform(number: int, value: Any) -> None:
            try:
                value = steps[number].work(value)
                if isinstance(value, Final):
                    value = value.value
                elif number + 1 < len(steps) and not waiter.cancelled():
                    submit(number + 1, value)
                    return
            except BaseException as error:
                tell(None, error)
            else:
                tell(value, None)

        def submit(number: int, value: Any) -> None:
            threads = self._computing if steps[number].computes else self._storing
            threads.submit(perform, number, value)

        try:
            submit(0, None)
        except BaseException:
            self.pending -= computes
            raise
        return await waiter

    def close(self) -> None:
        """Finish the work in progress."""
        self._computing.shutdown()
        self._storing.shutdown()
