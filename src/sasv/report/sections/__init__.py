"""The sections of a report, a file each: systems to a ``Section``."""
