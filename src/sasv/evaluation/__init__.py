"""Evaluation: scores protocols, claims, and countermeasures; measures and compares scores."""

from sasv.evaluation.comparing import compare
from sasv.evaluation.measuring import MeasureSettings, measure_of, metrics_of
from sasv.evaluation.protocol import Protocol, check_groups, load_protocol

__all__ = [
    "MeasureSettings",
    "Protocol",
    "check_groups",
    "compare",
    "load_protocol",
    "measure_of",
    "metrics_of",
]
