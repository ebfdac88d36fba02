"""sasv train."""

from pathlib import Path

from sasv.core.processes import joined
from sasv.embeddings.model import pick_device
from sasv.training.options import TrainOptions
from sasv.training.trainer import Trainer

__all__ = ["TrainOptions", "train"]


def train(options: TrainOptions) -> Path:
    """Train an encoder; return the path of the final model. The same command goes on where it stopped.

    Started by torchrun, the processes train together.
    """
    with joined(pick_device(options.device)) as processes:
        return Trainer(options, processes).run()
