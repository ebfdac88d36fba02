"""Presents results to people: text, tables, plots, and pages."""

from sasv.report.plots import plot_scores
from sasv.report.text import format_metrics

__all__ = ["format_metrics", "plot_scores"]
