"""The sections of a report. Each file has a function that makes a ``Section`` from systems."""
