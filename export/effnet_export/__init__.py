"""The build host: from a PyTorch EfficientNet to a verified bundle."""
