"""Foundations: errors, atomic files, progress, registries. Imports no other room of sasv."""

import logging

logging.getLogger("sasv").addHandler(logging.NullHandler())  # as a library sasv is silent
