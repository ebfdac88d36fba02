"""Exports a model that takes waveforms as one ONNX file, and checks that the results agree."""
