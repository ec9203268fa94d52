"""EfficientNet in PyTorch. Only the modules that need torch import it."""
