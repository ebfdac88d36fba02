"""sasv train."""

from pathlib import Path

from sasv.training.options import TrainOptions
from sasv.training.trainer import Trainer

__all__ = ["TrainOptions", "train"]


def train(options: TrainOptions) -> Path:
    """Train an encoder; return the path of the final model. The same command goes on where it stopped."""
    return Trainer(options).run()
