"""Duplex models as graphs of ONNX, which run in ONNX Runtime without PyTorch."""
