"""Checkpoints that contain their own specification. Also reads and writes published ``.model``
files.
"""

from sasv.checkpoints.checkpoint import Checkpoint
from sasv.checkpoints.heads import restore_head
from sasv.checkpoints.mixing import mixed
from sasv.checkpoints.quantised import dequantised, large, quantised
from sasv.checkpoints.store import load_checkpoint, save_checkpoint, spawn_encoder
from sasv.models.specification import Specification

__all__ = [
    "Checkpoint",
    "Specification",
    "dequantised",
    "large",
    "load_checkpoint",
    "mixed",
    "quantised",
    "restore_head",
    "save_checkpoint",
    "spawn_encoder",
]
