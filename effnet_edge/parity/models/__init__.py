"""What can be compared: PyTorch, ONNX and OpenVINO models, all through one protocol."""
