"""Loads the batches of a plan with DataLoader workers that can neither hang nor outlive the
training run.

Workers ignore SIGTERM, SIGHUP, SIGUSR1, and Ctrl-C, which a terminal, SLURM, systemd, and
``timeout`` send to the whole process group; the main process decides when the workers end. Before
the first batch, the free space in /dev/shm and the limit of open files are compared with the needs
of the workers.
"""

import contextlib
import errno
import logging
import multiprocessing
import shutil
import signal
import time
from collections.abc import Iterator
from functools import partial
from types import FrameType
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from sasv.batches.dataset import Batch, CropDataset, PlanSampler, Read, collate
from sasv.batches.on_device import Changes, apply_changes
from sasv.core.errors import SasvError

logger = logging.getLogger("sasv")

SHARED_MEMORY = "/dev/shm"
PREFETCHED = 2
"""Batches that each worker reads ahead (the default of torch's DataLoader)."""

FILES_PER_WORKER = 8
"""Number of files that the main process keeps open for each worker: its pipes and semaphores."""

FILES_PER_BATCH = 2
"""Number of files that it keeps open for each batch in shared memory: one for each tensor."""

OTHER_FILES = 48
"""Number of other files that it keeps open."""

RESUMES = "run the same command again to resume from the last saved state"


class Arrays(NamedTuple):
    """A ``Batch`` as arrays, to be sent through pipes."""

    waves: np.ndarray
    labels: np.ndarray
    changes: tuple[np.ndarray, ...] | None = None


class Ahead:
    """An iterator over batches that can fetch the next one before it is wanted, while a GPU
    computes.

    Args:
        batches: the batches.

    Attributes:
        waited: seconds that were spent waiting for batches.
    """

    def __init__(self, batches: Iterator[tuple[Tensor, Tensor]]):
        self.batches = batches
        self.waited = 0.0
        self._fetched = False
        self._batch: tuple[Tensor, Tensor] | None = None

    def fetch(self) -> None:
        """Fetch the next batch, unless that has been done."""
        if not self._fetched:
            started = time.monotonic()
            self._batch = next(self.batches, None)
            self._fetched = True
            self.waited += time.monotonic() - started

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[Tensor, Tensor]:
        self.fetch()
        self._fetched = False
        if self._batch is None:
            raise StopIteration
        return self._batch


class BatchLoader:
    """Reads batches in this process or in workers. The batches do not depend on the number of
    workers.

    Args:
        dataset: reads one pair.
        num_workers: number of DataLoader workers; 0 reads in this process.
        pairs: number of pairs in a batch.
        timeout: seconds after which a missing batch is an error; 0 waits indefinitely.
        pin: whether batches are copied to pinned memory, for a GPU.
        peers: number of processes on this machine that each have so many workers.
        device: device that applies the augmentation if the dataset does not.

    Raises:
        SasvError: the limit of open files is too low for the workers.
    """

    def __init__(
        self,
        dataset: CropDataset,
        num_workers: int,
        pairs: int,
        timeout: float = 600.0,
        pin: bool = False,
        peers: int = 1,
        device: torch.device | None = None,
    ):
        self.dataset = dataset
        self.device = device or torch.device("cpu")
        self.num_workers = num_workers
        self.timeout = timeout
        self.pin = pin
        self.shared_memory = True
        self.stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        if num_workers:
            needed = peers * num_workers * PREFETCHED * pairs * 2 * dataset.samples * 4
            self._find_transport(needed)

    def _find_transport(self, needed: int) -> None:
        """Choose between shared memory and pipes; ``needed`` is in bytes."""
        free = free_shared_memory()
        files = OTHER_FILES + self.num_workers * FILES_PER_WORKER
        shared_files = files + self.num_workers * PREFETCHED * FILES_PER_BATCH
        limit = raise_file_limit(shared_files)
        if limit < files:
            raise SasvError(
                f"at most {limit} files can be open at the same time, but --num-workers "
                f"{self.num_workers} needs about {files}; raise the limit (ulimit -n 4096), or use "
                "--num-workers 0"
            )
        why = ""
        if free is not None and free < needed:
            why = (
                f"{SHARED_MEMORY} has {free / 1e6:.0f} MB free, but {self.num_workers} workers may "
                f"need {needed / 1e6:.0f} MB (docker run --shm-size 8g gives more)"
            )
        elif limit < shared_files:
            why = f"the limit of open files is {limit} (ulimit -n 4096 raises it)"
        if why:
            self.shared_memory = False
            logger.info(
                f"{why}; batches are passed through pipes instead, which is a little slower"
            )

    @contextlib.contextmanager
    def batches(self, sampler: PlanSampler) -> Iterator[Iterator[tuple[Tensor, Tensor]]]:
        """Context manager that yields the batches of a sampler. The workers end with the block,
        whether or not it raises.
        """
        before = set(multiprocessing.active_children())
        try:
            loader: DataLoader[Any] = DataLoader(
                self.dataset,
                batch_sampler=sampler,
                num_workers=self.num_workers,
                collate_fn=partial(
                    collate if self.shared_memory else _collate_arrays, samples=self.dataset.samples
                ),
                pin_memory=self.pin,
                worker_init_fn=_begin_worker if self.num_workers else None,
                timeout=self.timeout if self.num_workers else 0,
            )
            yield self._received(loader)
        except BaseException:
            if self.num_workers:
                _kill(set(multiprocessing.active_children()) - before)
            raise

    def _received(self, loader: DataLoader[Any]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of a loader. Each must arrive within ``timeout``."""
        batches = iter(loader)
        while True:
            try:
                with _time_limit(self.timeout * 1.25 if self.num_workers else 0):
                    batch = next(batches, None)
            except (EOFError, ConnectionError, FileNotFoundError) as error:
                if not self.num_workers:
                    raise
                # A worker died while it was sending a batch.
                raise SasvError(_died(type(error).__name__)) from error
            except SasvError as error:
                # torch puts the worker's traceback before the message.
                words = str(error).rpartition(f"{type(error).__name__}: ")[2].strip()
                raise SasvError(f"{words}; {RESUMES}") from error
            if batch is None:
                return
            yield self._finished(batch)

    def _finished(self, batch: Batch | Arrays) -> tuple[Tensor, Tensor]:
        """Return the waveforms, with any remaining augmentation applied, and the classes."""
        # A stream of its own, so that it does not wait for the training step before it.
        with contextlib.nullcontext() if self.stream is None else torch.cuda.stream(self.stream):
            waves = self._on_device(batch.waves)
            if batch.changes is not None:
                changes = Changes(*(self._on_device(part) for part in batch.changes))
                waves = apply_changes(waves, changes)
        if self.stream is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_stream(self.stream)
            waves.record_stream(current)
        return waves, torch.as_tensor(batch.labels)

    def _on_device(self, part: Tensor | np.ndarray) -> Tensor:
        return torch.as_tensor(part).to(self.device, non_blocking=True)


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise RuntimeError if the block takes longer; 0 sets no limit.

    The timeout of torch has no effect if a worker is stopped while it sends a batch.
    """
    if not seconds or not hasattr(signal, "setitimer"):
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise RuntimeError(f"DataLoader timed out after {seconds:g} seconds")

    try:
        before = signal.signal(signal.SIGALRM, end)
    except ValueError:  # only the main thread can be interrupted
        yield
        return
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def failures_explained() -> Iterator[None]:
    """Turn failures of workers, and a lack of memory or files, into a SasvError that says what to
    do.

    It must enclose all code that runs while workers exist, because torch raises the error for a
    dead worker wherever the main thread happens to be.
    """
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        words = explanation(error)
        if words is None:
            raise
        raise SasvError(words) from error


def explanation(error: BaseException) -> str | None:
    """Return an explanation of a failure in loading or computing, with advice, or None if the
    failure is of another kind.
    """
    text = " ".join(str(error).split())
    number = getattr(error, "errno", None)
    if "DataLoader timed out" in text:
        return (
            f"no batch arrived within --loader-timeout ({text}): a worker hangs or was stopped, a "
            f"disk does not respond, or {SHARED_MEMORY} is full; {RESUMES}"
        )
    if number in (errno.EMFILE, errno.ENFILE) or "Too many open files" in text or "ancdata" in text:
        return (
            "too many open files; raise the limit (ulimit -n 4096) or use fewer --num-workers; "
            f"{RESUMES}"
        )
    if (
        isinstance(error, MemoryError)
        or number in (errno.ENOMEM, errno.EAGAIN)
        or "out of memory" in text.lower()
        or "can't allocate memory" in text
        or "Caught MemoryError" in text
    ):
        return (
            "not enough memory; use fewer --pairs, fewer --crop-frames or fewer --num-workers; "
            f"{RESUMES}"
        )
    if "DataLoader worker" in text and (
        "killed by signal" in text or "exited unexpectedly" in text
    ):
        return _died(text)
    return None


def _died(reason: str) -> str:
    return (
        f"a DataLoader worker died ({reason}), often because of a lack of memory; try fewer "
        f"--num-workers; {RESUMES}"
    )


def free_shared_memory() -> int | None:
    """Return the free bytes of shared memory, or None if the system has no such file system."""
    try:
        return shutil.disk_usage(SHARED_MEMORY).free
    except OSError:
        return None


def raise_file_limit(wanted: int) -> int:
    """Raise the limit of open files of this process to ``wanted`` if that is allowed; return the
    resulting limit.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    new = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (new, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _begin_worker(worker: int) -> None:
    """Prepare a worker: it uses one thread, and ignores signals. It ends when its parent ends,
    which torch monitors.
    """
    torch.set_num_threads(1)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"):
        if hasattr(signal, name):  # Windows has only the first two
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def _collate_arrays(items: list[Read | None], samples: int) -> Arrays:
    """Collate to arrays, because tensors would be passed in shared memory."""
    waves, labels, changes = collate(items, samples)
    arrays = None if changes is None else tuple(part.numpy() for part in changes)
    return Arrays(waves.numpy(), labels.numpy(), arrays)


def _kill(workers: set[Any]) -> None:
    """End workers at once, including those that are stopped or hang."""
    handler = None
    if hasattr(signal, "SIGCHLD"):  # the handler of torch would report their deaths as failures
        with contextlib.suppress(ValueError):  # only the main thread has handlers
            handler = signal.signal(signal.SIGCHLD, lambda *_: None)
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.join(5)
    if handler is not None:
        signal.signal(signal.SIGCHLD, handler)
