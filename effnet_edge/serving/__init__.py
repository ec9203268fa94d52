"""Models behind servers that speak KServe v2, the Open Inference Protocol, by HTTP and gRPC."""
