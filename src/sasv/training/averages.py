"""Averaged weights (EMA, SWA), and batch-norm statistics recomputed for them."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from sasv.parallel.processes import Processes
from sasv.training.modules import System, flat_pairs
from sasv.training.normalisation import batch_norms


class Averages:
    """A running average of the weights of a system (encoder and loss head).

    Args:
        system: the system.
        kind: ema (exponential, after every step; Polyak and Juditsky 1992) or swa (equal weights,
            after every epoch; Izmailov et al. 2018).
        decay: decay of ema, in [0, 1).
        first: number of epochs before averaging begins; earlier weights are not included.
    """

    def __init__(self, system: System, kind: str, decay: float, first: int):
        update: dict[str, Any] = {}  # by default equal weights
        if kind == "ema":
            update["multi_avg_fn"] = get_ema_multi_avg_fn(decay)
        self.model = AveragedModel(system, **update)
        self.kind = kind
        self.first = first

    @property
    def ready(self) -> bool:
        """Whether the average contains any weights yet."""
        return int(self.model.n_averaged) > 0

    def after_step(self, system: System, epoch: int) -> None:
        """Update the average after an optimiser step in epoch ``epoch``, counted from 0."""
        if self.kind == "ema" and epoch >= self.first:
            self.model.update_parameters(system)

    def after_epoch(self, system: System, epoch: int) -> None:
        """Update the average at the end of epoch ``epoch``, counted from 0."""
        if self.kind == "swa" and epoch >= self.first:
            self.model.update_parameters(system)

    def system(
        self,
        batches: Iterable[tuple[Tensor, Tensor]],
        device: torch.device,
        processes: Processes,
    ) -> System:
        """Return the averaged system, with batch-norm statistics computed from ``batches`` unless
        they are frozen.

        Args:
            batches: waveforms (items, 2, samples) and classes (items,) of this process.
            device: device of the system.
            processes: the processes over whose batches the statistics are averaged.
        """
        system = self.model.module
        assert isinstance(system, System)
        if system.freeze_batch_norm:
            return system
        waveforms = (flat_pairs(waves) for waves, labels in batches if len(labels))
        update_bn(waveforms, _Embedder(system), device)
        for norm in batch_norms(system.encoder):
            for statistics in (norm.running_mean, norm.running_var):
                assert statistics is not None
                processes.total(statistics).div_(processes.world)
        return system


class _Embedder(nn.Module):
    """Computes embeddings from waveforms as in training, for ``update_bn``."""

    def __init__(self, system: System):
        super().__init__()
        self.system = system

    def forward(self, waves: Tensor) -> Tensor:
        return self.system.embed(waves)
