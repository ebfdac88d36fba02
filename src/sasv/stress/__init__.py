"""Stress tests of any verification system: copies by every vocoder, and transmission, noise, rooms,
level, clipping, and shorter speech, measured at the system's own threshold.
"""
