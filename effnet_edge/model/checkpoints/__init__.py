"""Checkpoints of many code bases: file formats, the names of their tensors, and filling."""
