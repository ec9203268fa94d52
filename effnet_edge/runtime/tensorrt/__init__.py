"""TensorRT and TensorRT-RTX: compiling engines on the machine that runs them."""
