"""Processes and devices that share one job."""
