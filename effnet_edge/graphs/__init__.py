"""ONNX graphs: their types, their rounding, and what is taken out of them or put in."""
