"""What a person sees of the numbers: text tables and plots."""

from sasv.report.plots import plot_scores
from sasv.report.text import format_metrics

__all__ = ["format_metrics", "plot_scores"]
