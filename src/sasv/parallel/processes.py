"""The processes that work on one job: a single one, or all that torchrun started on one or several
nodes.
"""

import contextlib
import gc
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from sasv.parallel.environment import launcher

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """The position of this process among all of a job.

    Attributes:
        rank: number of this process, from 0.
        world: number of processes.
    """

    rank: int = 0
    world: int = 1

    @property
    def main(self) -> bool:
        """Whether this is the process that writes files and logs."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """Return the sum over all processes, without gradient, of a tensor that has the same shape
        in each.
        """
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is set in any process; ``device`` is the one on which they exchange
        tensors.
        """
        if self.world == 1:
            return flag
        return float(self.total(torch.tensor([float(flag)], device=device))) > 0

    def spread(self, tensors: list[Tensor]) -> None:
        """Copy the values of the main process to all processes."""
        if self.world > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def gather(self, value: T) -> list[T]:
        """Return the value of every process, in order of rank, to all of them."""
        if self.world == 1:
            return [value]
        gathered: list[Any] = [None] * self.world
        dist.all_gather_object(gathered, value)
        return gathered

    def wait(self) -> None:
        """Wait until all processes have reached this call."""
        self.gather(None)


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[Processes]:
    """Join the processes that torchrun started (with gloo on a CPU, NCCL on GPUs), if any, and
    yield the position of this one.
    """
    world = launcher().world_size
    if world == 1:
        yield Processes()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    started = not dist.is_initialized()
    if started:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    processes = Processes(dist.get_rank(), dist.get_world_size())
    try:
        yield processes
        processes.wait()  # no process may leave while another one still communicates with it
    finally:
        if started:
            gc.collect()  # objects that refer to the group must be deleted before it
            dist.destroy_process_group()


class _Total(torch.autograd.Function):
    """Sum over all processes. Every process receives the sum, so the gradient is the sum of their
    gradients.
    """

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


def total_with_gradient(values: Tensor) -> Tensor:
    """Return the sum over all processes, differentiable."""
    return _Total.apply(values)  # type: ignore[no-untyped-call]
