"""Ground floor: errors, atomic files, progress, registries. Imports nothing of sasv."""

import logging

logging.getLogger("sasv").addHandler(logging.NullHandler())  # as a library sasv is silent
