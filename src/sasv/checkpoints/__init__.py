"""Checkpoints that carry their own specification; published ``.model`` files in and out."""

from sasv.checkpoints.store import Checkpoint, load_checkpoint, restore_head, save_checkpoint, spawn_encoder
from sasv.models.specification import Specification

__all__ = ["Checkpoint", "Specification", "load_checkpoint", "restore_head", "save_checkpoint", "spawn_encoder"]
