"""The version of sasv: the only place that defines it, for packaging, checkpoints, and reports."""

__version__ = "0.1.0"
