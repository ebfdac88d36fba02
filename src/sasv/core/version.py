"""The version of sasv, in the one place from which packaging, checkpoints and reports take it."""

__version__ = "0.1.0"
