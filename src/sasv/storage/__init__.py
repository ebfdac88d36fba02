"""Where the bytes of a recording are: a file, a member of a tar, or an object behind an address.

``locate`` is the one place that turns a path of a table into something to read.
"""

from sasv.storage.locate import locate
from sasv.storage.locations import absolute, container_of, joined, relative
from sasv.storage.resource import Resource

__all__ = ["Resource", "absolute", "container_of", "joined", "locate", "relative"]
