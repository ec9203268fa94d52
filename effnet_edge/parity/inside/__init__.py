"""A model opened at its tensors: tracing, alignment, layers, bisection, diagnosis."""
