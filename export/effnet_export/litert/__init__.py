"""ONNX → LiteRT: the graph in LiteRT's operators and layout, written by its published schema."""
