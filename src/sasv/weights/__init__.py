"""Weights by name: what there is, where it is, how it comes here."""

from sasv.weights.catalogue import Entry, catalogue, find
from sasv.weights.fetch import fetch
from sasv.weights.place import resolve, weights_folder

__all__ = ["Entry", "catalogue", "fetch", "find", "resolve", "weights_folder"]
