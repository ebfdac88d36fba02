"""The processes and devices that share one job."""
