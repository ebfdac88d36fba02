"""Metrics: scores and labels in, numbers out."""

from sasv.metrics.eer import Eer, attack_eers, eer, sasv_eers
from sasv.metrics.intervals import speaker_intervals

__all__ = ["Eer", "attack_eers", "eer", "sasv_eers", "speaker_intervals"]
