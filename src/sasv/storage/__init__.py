"""Finds and reads the bytes of a recording: a file, a member of a tar, or an object in remote
storage.

``locate`` is the one place that turns a path from a table into something that can be read.
"""

from sasv.storage.locate import locate
from sasv.storage.locations import absolute, container_of, joined, relative
from sasv.storage.resource import Resource

__all__ = ["Resource", "absolute", "container_of", "joined", "locate", "relative"]
