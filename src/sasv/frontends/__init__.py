"""Waveforms to features: one front-end per file, and the masks that keep padding out of them."""
