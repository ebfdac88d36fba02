"""Foundations: errors, atomic file writes, progress, registries. Imports no other part of sasv."""

import logging

logging.getLogger("sasv").addHandler(logging.NullHandler())  # a library must not print by default
