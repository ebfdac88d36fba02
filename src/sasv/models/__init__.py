"""What a model says about itself. Imports no torch."""

from sasv.models.specification import Specification

__all__ = ["Specification"]
