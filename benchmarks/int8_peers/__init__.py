"""INT8 of effnet-edge and of its peers: accuracy and latency on the same pictures."""
