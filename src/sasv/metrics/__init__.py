"""Metrics computed from scores and labels."""

from sasv.metrics.cllr import cllr, min_cllr
from sasv.metrics.costs import COST_MODELS, DEFAULT_COSTS, CostModel, cost_model
from sasv.metrics.curve import Curve, Eer, Points
from sasv.metrics.eer import eer, sasv_eers
from sasv.metrics.intervals import intervals, paired_test
from sasv.metrics.summary import Measure
from sasv.metrics.tandem import ASVSPOOF5_ASV, AsvRates, asv_rates, min_t_dcf, t_eer

__all__ = [
    "ASVSPOOF5_ASV",
    "AsvRates",
    "COST_MODELS",
    "CostModel",
    "DEFAULT_COSTS",
    "Curve",
    "Eer",
    "Measure",
    "Points",
    "asv_rates",
    "cllr",
    "cost_model",
    "eer",
    "intervals",
    "min_cllr",
    "min_t_dcf",
    "paired_test",
    "sasv_eers",
    "t_eer",
]
