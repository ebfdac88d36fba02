"""Calibration: scores of development trials to log-likelihood ratios, fusions and thresholds."""

from sasv.calibration.backend import KINDS, Backend, fit_backend

__all__ = ["KINDS", "Backend", "fit_backend"]
