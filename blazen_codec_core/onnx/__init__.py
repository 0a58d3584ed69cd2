"""ONNX graphs of codecs: their export, and their use without PyTorch."""
