"""Calibration, which maps scores to log-likelihood ratios and is fitted on development trials;
fusion; and thresholds.
"""

from sasv.calibration.backend import KINDS, Backend, fit_backend
from sasv.calibration.spoof_head import fit_spoof_head
from sasv.calibration.three_way import ThreeWay, fit_three_way

__all__ = ["KINDS", "Backend", "ThreeWay", "fit_backend", "fit_spoof_head", "fit_three_way"]
