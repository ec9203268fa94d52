"""What is done to ONNX graphs: types, rounding, tensors, edits, files, and sessions that run them.

Only `sessions` is for the device too: it imports no onnx.
"""
