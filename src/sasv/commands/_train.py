"""sasv train."""

import contextlib
from pathlib import Path

from sasv.core.errors import MissingExtra
from sasv.parallel.devices import arithmetic, pick_device
from sasv.parallel.processes import Processes, process_group
from sasv.report.plots import plot_curves
from sasv.training.build import build_trainer
from sasv.training.options import TrainOptions

__all__ = ["TrainOptions", "train"]


def train(options: TrainOptions) -> Path:
    """Train an encoder; return the path of the final model. An interrupted run is resumed.

    If started by torchrun, all processes train one model together.
    """
    device = pick_device(options.device)
    with arithmetic(options.tf32, options.deterministic), process_group(device) as processes:
        return _trained(options, processes)


def _trained(options: TrainOptions, processes: Processes) -> Path:
    trainer = build_trainer(options, processes)
    model = trainer.run()
    if processes.main:
        with contextlib.suppress(MissingExtra):  # metrics.csv contains the same numbers
            plot_curves(trainer.history, trainer.out / "curves.png")
    return model
