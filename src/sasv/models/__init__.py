"""The metadata of a model. Imports no PyTorch."""

from sasv.models.specification import Specification

__all__ = ["Specification"]
