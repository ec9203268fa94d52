"""What can be compared: PyTorch, ONNX, OpenVINO and LiteRT models, all through one protocol."""
