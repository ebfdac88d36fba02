"""From speech to a verdict without PyTorch: an exported model, run by ONNX Runtime."""
