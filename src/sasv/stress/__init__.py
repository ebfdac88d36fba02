"""Stress tests of verification systems with vocoded copies, transmission, noise, reverberation,
changes of level, clipping, and shorter speech, measured at the threshold of the system.
"""
