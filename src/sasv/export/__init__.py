"""A model as one ONNX file, from samples on, with the proof that it computes the same."""
