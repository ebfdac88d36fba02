"""Weights by name: the catalogue, where weights are stored, and how they are downloaded."""

from sasv.weights.catalogue import Entry, catalogue, find
from sasv.weights.fetch import fetch
from sasv.weights.place import resolve, weights_folder

__all__ = ["Entry", "catalogue", "fetch", "find", "resolve", "weights_folder"]
